"""What tests need beside Python's packages: programs, and vLLM.

A test that lacks one is skipped by name, and in CI it fails. `--quick` (`make check`) leaves out what would start a
program or need vLLM, wherever that is there or not.
"""

import importlib.util
import os
from typing import NoReturn

import pytest

quick = False  # set from the command line, by tests/conftest.py


def missing(program: str, remedy: str) -> NoReturn:
    """End the test: `remedy` says what to install."""
    text = f"{program} is missing: {remedy}"
    if in_ci():
        pytest.fail(text)
    pytest.skip(text)


def starts(program: str) -> None:
    """Ends the test where it is to be quick. Whatever starts a program of its own calls this first."""
    if quick:
        pytest.skip(f"starts {program}")


def without_vllm() -> bool:
    """Whether tests that need vLLM are left out. Never in CI: there, they fail without it."""
    return quick or (importlib.util.find_spec("vllm") is None and not in_ci())


def in_ci() -> bool:
    return bool(os.environ.get("CI"))

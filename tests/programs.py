"""Programs that the tests need beside Python: a test that lacks one is skipped by name, and in CI it fails."""

import os
from typing import NoReturn

import pytest


def missing(program: str, remedy: str) -> NoReturn:
    """End the test: `remedy` says what to install."""
    text = f"{program} is missing: {remedy}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)

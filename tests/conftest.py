"""Real parts for the tests: one gateway with the real engine per session, in a process of its own."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import programs
from tests.postgres import postgres
from tests.server import Server, start_server
from tests.sqlite import sqlite_template

__all__ = ["postgres", "sqlite_template"]

ALL_MODELS = "all"
TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Every shipped card on the demo weights, on SQLite."""
    folder = tmp_path_factory.mktemp("server")
    with start_server(
        folder,
        FAREBOX_MODELS=ALL_MODELS,
        FAREBOX_SOURCE="demo",
        FAREBOX_PRECISION="auto",
        FAREBOX_BOOTSTRAP_KEY=f"test-{secrets.token_hex(16)}",
        FAREBOX_ADMIN_KEY=f"admin-{secrets.token_hex(16)}",
    ) as running:
        running.wait_until_ready()
        yield running
    # After all tests: the database and the log hold no key in clear.
    running.assert_no_secrets()


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parent.parent


# Tests of the engine, and of whole programs with it. These few of them need no vLLM.
ENGINE_FOLDERS = frozenset({"engine", "e2e", "clients"})
WITHOUT_ENGINE = frozenset({"test_scripted.py", "test_sizing.py"})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only tests that start no program and need no vLLM")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Before they are imported: many import vLLM."""
    folder = collection_path.relative_to(TESTS).parts[:1] if collection_path.is_relative_to(TESTS) else ()
    engine = ENGINE_FOLDERS.intersection(folder) and collection_path.name not in WITHOUT_ENGINE
    return True if engine and collection_path.suffix == ".py" and programs.without_vllm() else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = {"slow": programs.quick, "vllm": programs.without_vllm()}
    names = [name for name, out in left_out.items() if out]
    deselected = {item for item in items if any(item.get_closest_marker(name) for name in names)}
    if deselected:
        config.hook.pytest_deselected(items=list(deselected))
        items[:] = [item for item in items if item not in deselected]


def pytest_configure(config: pytest.Config) -> None:
    programs.quick = config.getoption("quick")
    # A proxy in the environment would take the tests' requests to loopback elsewhere.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

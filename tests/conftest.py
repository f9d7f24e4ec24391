"""Real parts for the tests: one gateway with the real engine per session, in a process of its own."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import postgres
from tests.server import Server, start_server

__all__ = ["postgres"]

ALL_MODELS = "all"


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


def pytest_configure(config: pytest.Config) -> None:
    # A proxy in the environment would take the tests' requests to loopback elsewhere.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

"""Databases for the tests: every test that asks for `world` runs on SQLite and on PostgreSQL.

Each gets a database of its own, copied from one that was migrated once.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from storage.database import Database
from tests.postgres import PostgresServer
from tests.pricing.ledger_world import World


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes databases: each call gives the URL of another migrated one. Call it outside of an event loop."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        numbers = itertools.count()

        def copy_file() -> str:
            path = tmp_path / f"{next(numbers)}.db"
            shutil.copy(template, path)
            return f"sqlite:///{path}"

        return copy_file
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return lambda: asyncio.run(postgres.copy("template_farebox"))


@pytest.fixture
def database_url(fresh_url: Callable[[], str]) -> str:
    return fresh_url()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url)
    yield database
    await database.close()


@pytest.fixture
def world(database: Database, database_url: str) -> World:
    return World(database, database_url)

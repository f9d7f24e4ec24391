"""An empty SQLite ledger for tests to copy: making the tables anew takes longer than most tests."""

import asyncio
from pathlib import Path

import pytest

from storage.database import Database
from storage.migrations import upgrade


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"

    async def make() -> None:
        database = await Database.open(f"sqlite:///{path}")
        await upgrade(database)
        await database.close()

    asyncio.run(make())
    return path

"""Migrations: one history for both databases, and a clear word where code and schema don't fit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, select, text

import gateway.console.table
import gateway.idempotency.table
import gateway.models.adapter_store
import gateway.webhooks.table  # noqa: F401
from pricing.ledger import Ledger
from storage.database import Database
from storage.errors import SchemaMismatch
from storage.migrations import REVISION, check, upgrade
from storage.schema import meta, metadata
from tests.postgres import PostgresServer
from tests.pricing.ledger_world import World


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/100%empty.db"
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return asyncio.run(postgres.copy("template0"))


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Database]:
    database = await Database.open(empty_url)
    yield database
    await database.close()


async def test_an_empty_database_is_told_what_to_run_and_upgraded(empty: Database) -> None:
    with pytest.raises(SchemaMismatch, match="Run `farebox db upgrade`"):
        await check(empty)
    with pytest.raises(SchemaMismatch):
        await Ledger.open(empty)
    await asyncio.gather(upgrade(empty), upgrade(empty), upgrade(empty))  # replicas that start together
    await check(empty)
    await upgrade(empty)


async def test_the_migrations_make_the_tables_that_the_code_uses(world: World) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"include_name": is_ours, "compare_type": True})
        return list(compare_metadata(context, metadata))

    def is_ours(name: str | None, type_: str, _: object) -> bool:
        return type_ != "table" or name in metadata.tables  # PostgreSQL's partitions are tables, too

    async with world.database.read() as connection:
        assert await connection.run_sync(differences) == []


async def set_schema(world: World, revision: str, compatible_from: str) -> None:
    async with world.database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": revision})
        await connection.execute(text("UPDATE meta SET compatible_from = :it"), {"it": compatible_from})


async def test_code_works_beside_a_newer_schema_that_allows_it(world: World) -> None:
    await set_schema(world, "9999", REVISION)
    await check(world.database)
    await upgrade(world.database)  # leaves it alone
    async with world.ledger() as ledger:
        await ledger.reserve(world.request((await world.key()).key, 1)).stands()


async def test_code_refuses_a_newer_schema_that_does_not_allow_it(world: World) -> None:
    await set_schema(world, "9999", "9998")
    for attempt in (check, upgrade, Ledger.open):
        with pytest.raises(SchemaMismatch, match="Install a newer Farebox"):
            await attempt(world.database)


async def test_code_refuses_an_older_schema(world: World) -> None:
    await set_schema(world, "0000", "0000")
    with pytest.raises(SchemaMismatch, match=r"revision 0000 and .* Run `farebox db upgrade`"):
        await check(world.database)


async def test_sqlite_survives_a_power_cut_by_its_settings(world: World) -> None:
    if world.database.is_postgresql:
        return
    async with world.database.read() as connection:
        found = [await connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")]
        assert found == ["wal", 2]
        assert (await connection.execute(select(meta.c.directory_version))).scalar_one() == 0

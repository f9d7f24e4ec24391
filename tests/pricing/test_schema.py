"""Migrations: one history for both databases, and a clear word where code and schema don't fit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, select, text

import gateway.batches.tables
import gateway.console.table
import gateway.files.table
import gateway.idempotency.table
import gateway.models.adapter_store
import gateway.webhooks.table  # noqa: F401
from pricing.accounts import Accounts
from pricing.balance import Limit, LimitKind
from pricing.keys import Keys
from pricing.ledger import Ledger
from pricing.money import Picodollars
from pricing.usage import Usage
from storage.database import Database
from storage.errors import SchemaMismatch
from storage.migrations import REVISION, check, migrate, upgrade
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


async def test_the_one_limit_of_before_goes_on_where_it_stood(empty: Database) -> None:
    """From revision 0004: a limit with something spent and something running, entries, and sums older than those."""
    day, reserved_at = 1_795_132_800_000, 1_795_176_100_000
    columns = (
        "process_id, account_id, key_id, model, route, end_user, price_input, price_output, price_cached_input, "
        "amount, started_at, reserved_at, prompt_tokens, cached_tokens, completion_tokens"
    )
    request = f"'p', 1, 1, 'demo', 'chat', 'ada', 1, 1, 1, 30, 0, {reserved_at}, 1, 0, 2"
    statements = (
        "INSERT INTO accounts (id, name, created_at, limit_kind, limit_amount, period_start, spent, reserved, "
        f"spent_total) VALUES (1, 'acme', 0, 'day', 100, {day}, 60, 30, 75)",
        "INSERT INTO keys (id, account_id, name, prefix, role, secret_hash, created_at, version, limit_kind, "
        "limit_amount, period_start, spent, reserved, spent_total) "
        "VALUES (1, 1, 'key', 'fb', 'user', :hash, 0, 1, 'none', 0, 0, 75, 30, 75)",
        f"INSERT INTO reservations (request_id, {columns}) VALUES ('r', {request})",
        f"INSERT INTO entries (request_id, {columns}, settled_at, state, outcome, cost) "
        f"VALUES ('e', {request}, {reserved_at}, 'settled', 'finished', 60)",
        "INSERT INTO usage_daily VALUES ('2026-11-19', 1, 1, 'demo', 3, 3, 0, 6, 15), "
        "('2026-11-20', 1, 1, 'demo', 1, 1, 0, 2, 60)",
    )

    def before(connection: Connection) -> None:
        migrate(connection, "0004")
        for statement in statements:
            connection.execute(text(statement), {"hash": b"x" * 32} if ":hash" in statement else {})

    async with empty.write() as connection:
        await connection.run_sync(before)
    await upgrade(empty)
    accounts, keys, usage = Accounts(empty, lambda: reserved_at), Keys(empty, lambda: reserved_at), Usage(empty)
    (standing,) = (await accounts.balance(1)).limits
    assert standing.limit == Limit(LimitKind.DAY, Picodollars(100))
    assert (standing.period_start, standing.spent, standing.reserved) == (day, 60, 30)
    key = await keys.balance(1)
    assert (key.limits, key.spent_total, key.reserved_total) == ((), 75, 30)
    assert [(row.day, row.requests, row.cost) for row in await usage.totals(["day"])] == [
        ("2026-11-19", 3, 15),
        ("2026-11-20", 1, 60),
    ]
    assert [(row.hour, row.cost) for row in await usage.totals(["hour"])] == [
        ("2026-11-19T00:00:00.000Z", 15),
        ("2026-11-20T12:00:00.000Z", 60),
    ]
    assert [(row.user, row.requests, row.cost) for row in await usage.totals(["user"])] == [
        (None, 3, 15),
        ("ada", 1, 60),
    ]
    assert (await accounts.set_limit(1, Limit(LimitKind.HOUR, Picodollars(100)), actor="test")).left == 10

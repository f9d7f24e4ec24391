"""Changing PostgreSQL's partitions while somebody else, such as a backup, holds the table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text

from pricing.clock import next_month_start
from pricing.reservation import Outcome
from pricing.retention import Retention, make_partitions, remove_old_entries
from tests.pricing.ledger_world import DAY, HOUR, NOON, World, used

pytestmark = pytest.mark.parametrize("fresh_url", ["postgresql"], indirect=True)

PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'entries'::regclass ORDER BY 1"
WAITING = """
SELECT count(*) FROM pg_locks WHERE NOT granted AND relation IN (
    SELECT 'entries'::regclass UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = 'entries'::regclass)
"""


async def partitions(world: World) -> list[str]:
    async with world.database.read() as connection:
        return [*await connection.scalars(text(PARTITIONS))]


@asynccontextmanager
async def backup(world: World) -> AsyncIterator[None]:
    """Holds what `pg_dump` holds."""
    connection = await asyncpg.connect(world.url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE entries IN ACCESS SHARE MODE")
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def nobody_waits(world: World) -> AsyncIterator[None]:
    """Fails where any session waits for a lock on the ledger's entries meanwhile."""
    observer = await asyncpg.connect(world.url)
    seen = []

    async def watch() -> None:
        while True:
            seen.append(await observer.fetchval(WAITING))

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        observer.terminate()
    assert len(seen) > 10
    assert not any(seen)


async def test_a_month_that_begins_during_a_backup_makes_nobody_wait(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger():
        pass
    assert await partitions(world) == ["entries_2026_11", "entries_2026_12", "entries_2027_01", "entries_default"]
    world.clock.at = next_month_start(NOON)
    async with backup(world), nobody_waits(world), world.ledger() as ledger:  # a start asks for partitions
        for _ in range(50):
            reservation = ledger.reserve(world.request(key, 10))
            await reservation.stands()
            reservation.settle(used(1), Outcome.FINISHED)
        await ledger.flush()
        assert ledger.available
    assert "entries_2027_02" not in await partitions(world)

    retention = Retention(world.database, None, world.clock)
    await retention.run()
    assert "entries_2027_02" in await partitions(world)


async def test_partitions_that_could_not_be_made_are_tried_again_rarely(world: World) -> None:
    retention = Retention(world.database, None, world.clock)
    async with backup(world):
        await retention.run()
    await retention.run()
    assert await partitions(world) == ["entries_default"]
    world.clock.at += HOUR // 4
    await retention.run()
    assert len(await partitions(world)) == 4


async def test_old_months_are_dropped_when_the_backup_has_ended(world: World) -> None:
    await make_partitions(world.database, NOON)
    later = NOON + 100 * DAY
    async with backup(world), nobody_waits(world):
        assert await remove_old_entries(world.database, 30, later) is None
    assert len(await partitions(world)) == 4
    assert await remove_old_entries(world.database, 30, later) == 2
    assert await partitions(world) == ["entries_2027_01", "entries_default"]


async def test_a_month_whose_entries_are_in_the_default_partition_stays_there(world: World) -> None:
    """Where there was no free moment for months; retention removes them from there."""
    key = (await world.key()).key
    async with backup(world), world.ledger() as ledger:
        reservation = ledger.reserve(world.request(key, 10))
        await reservation.stands()
        reservation.settle(used(1), Outcome.FINISHED)
        await ledger.flush()
    assert await make_partitions(world.database, NOON)
    assert await partitions(world) == ["entries_2026_12", "entries_2027_01", "entries_default"]
    assert (await world.entry_sums(key.id))[0] == 1
    await remove_old_entries(world.database, 30, NOON + 31 * DAY)
    assert (await world.entry_sums(key.id))[0] == 0

"""Keeping `entries` bounded: PostgreSQL's monthly partitions, made ahead, and the removal of old entries.

Every entry is in the sums of `usage` from its own transaction on, so removing entries never changes a total.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Final

from sqlalchemy import MetaData, Table, delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from pricing import tables
from pricing.clock import MS_PER_DAY, Clock, day_name, month_start, next_month_start
from storage.database import Database
from storage.errors import RowsLocked

logger = logging.getLogger("farebox.ledger")

_MONTHS_AHEAD: Final = 3
_DELETE_BATCH: Final = 5_000
_TRIES: Final = 20
_PAUSE: Final = timedelta(milliseconds=25)
_RETRY_MS: Final = 15 * 60_000
_IN_DEFAULT: Final = tables.entries.to_metadata(MetaData(), name="entries_default")
_LOCK: Final = 7_203_541_188_150_001  # any number; the advisory lock of those who change partitions


async def make_partitions(database: Database, now: int) -> bool:
    """See that this month and the next two have partitions; tell whether they have. Nothing to do in SQLite.

    Entries of any other time go to the partition `entries_default`, so an insert can't fail for want of one, and a
    month whose entries are there already stays there.
    """
    if not database.is_postgresql:
        return True
    async with database.read() as connection:
        existing = await _partitions(connection)
    start, all_there = month_start(now), True
    for _ in range(_MONTHS_AHEAD):
        end = next_month_start(start)
        if _partition(start) not in existing:
            all_there &= await _at_a_free_moment(database, partial(_attach, start, end))
        start = end
    return all_there


async def _attach(start: int, end: int, connection: AsyncConnection) -> None:
    """Make the table apart, which locks nothing of `entries`, and attach it while nobody uses `entries_default`."""
    name = _partition(start)
    if name in await _partitions(connection) or await _in_default(connection, start, end):
        return
    await connection.execute(text(f"CREATE TABLE {name} (LIKE entries INCLUDING ALL)"))
    await connection.execute(text("LOCK TABLE ONLY entries IN SHARE UPDATE EXCLUSIVE MODE NOWAIT"))
    await connection.execute(text("LOCK TABLE entries_default IN ACCESS EXCLUSIVE MODE NOWAIT"))
    if await _in_default(connection, start, end):  # since a moment ago
        await connection.execute(text(f"DROP TABLE {name}"))
        return
    await connection.execute(text(f"ALTER TABLE entries ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end})"))


async def _in_default(connection: AsyncConnection, start: int, end: int) -> bool:
    at = _IN_DEFAULT.c.settled_at
    return bool(await connection.scalar(select(select(at).where(at >= start, at < end).exists())))


async def remove_old_entries(database: Database, entry_days: int, now: int) -> int | None:
    """Remove entries settled more than `entry_days` ago; give their number (SQLite) or that of dropped months.

    PostgreSQL drops whole months, which costs nothing, so up to a month more is kept there. None: the table was in use
    all the time, and it is to be tried again.
    """
    before = now - entry_days * MS_PER_DAY
    if not database.is_postgresql:
        return await _delete(database, tables.entries, before)
    await _delete(database, _IN_DEFAULT, before)
    async with database.read() as connection:
        old = sorted(name for name in await _partitions(connection) if name < _partition(month_start(before)))
    dropped = 0
    for name in old:
        if not await _at_a_free_moment(database, partial(_drop, name)):
            return None
        dropped += 1
    return dropped


async def _drop(name: str, connection: AsyncConnection) -> None:
    """`name` is of the form entries_YYYY_MM only, see `_partitions`."""
    await connection.execute(text("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE NOWAIT"))
    await connection.execute(text(f"DROP TABLE IF EXISTS {name}"))


async def _at_a_free_moment(database: Database, change: Callable[[AsyncConnection], Awaitable[None]]) -> bool:
    """Change partitions while nobody uses what it has to lock; False where there was no such moment.

    It never waits for a lock: whoever came after it would wait behind it, and a backup holds its locks for hours.
    """
    for _ in range(_TRIES):
        try:
            async with database.write() as connection:
                if await connection.scalar(text(f"SELECT pg_try_advisory_xact_lock({_LOCK})")):
                    await connection.execute(text("SET LOCAL lock_timeout = '50ms'"))
                    await change(connection)
                    return True
        except RowsLocked:
            pass
        await asyncio.sleep(_PAUSE.total_seconds())
    return False


async def _delete(database: Database, table: Table, before: int) -> int:
    removed = 0
    while True:
        some = (
            select(table.c.settled_at, table.c.request_id)
            .where(table.c.settled_at < before)
            .order_by(table.c.settled_at, table.c.request_id)
            .limit(_DELETE_BATCH)
        )
        async with database.write() as connection:
            rows = (await connection.execute(some)).all()
            if rows:
                last_at, last_id = rows[-1]
                upto = (table.c.settled_at < last_at) | (
                    (table.c.settled_at == last_at) & (table.c.request_id <= last_id)
                )
                await connection.execute(delete(table).where(upto))
        removed += len(rows)
        if len(rows) < _DELETE_BATCH:
            return removed


async def _partitions(connection: AsyncConnection) -> set[str]:
    names = await connection.scalars(
        text(
            "SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid "
            "WHERE inhparent = 'entries'::regclass AND child.relname ~ '^entries_[0-9]{4}_[0-9]{2}$'"
        )
    )
    return set(names)


def _partition(start: int) -> str:
    return f"entries_{day_name(start)[:7].replace('-', '_')}"


class Retention:
    """Calls the above once an hour, and a quarter of an hour after it found no free moment."""

    def __init__(self, database: Database, entry_days: int | None, clock: Clock) -> None:
        self._database = database
        self._entry_days = entry_days
        self._clock = clock
        self._due = 0

    async def run(self) -> None:
        """Do what is due. Raises LedgerUnavailable."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + _RETRY_MS
        done = await make_partitions(self._database, now)
        if self._entry_days is not None:
            done &= await remove_old_entries(self._database, self._entry_days, now) is not None
        if done:
            self._due = now + MS_PER_DAY // 24
        else:
            logger.info("the ledger's partitions are in use, by a backup perhaps; they are changed later")

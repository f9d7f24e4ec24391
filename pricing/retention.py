"""Keeping `entries` bounded: PostgreSQL's monthly partitions, made ahead, and the removal of old entries.

Every entry is in `usage_daily` from its own transaction on, so removing entries never changes a total.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from pricing import tables
from pricing.clock import MS_PER_DAY, Clock, day_name, month_start, next_month_start
from pricing.database import Database

_MONTHS_AHEAD: Final = 3
_DELETE_BATCH: Final = 5_000
_LOCK: Final = 7_203_541_188_150_001  # any number; the advisory lock of those who change partitions


async def make_partitions(database: Database, now: int) -> None:
    """See that this month and the next have partitions. Nothing to do in SQLite.

    Entries of any other time go to the partition `entries_default`, so an insert can't fail for want of one.
    """
    if not database.is_postgresql:
        return
    async with database.write() as connection:
        await _only_one(connection)
        existing = await _partitions(connection)
        start = month_start(now)
        for _ in range(_MONTHS_AHEAD):
            end = next_month_start(start)
            name = _partition(start)
            if name not in existing:
                await connection.execute(
                    text(f"CREATE TABLE {name} PARTITION OF entries FOR VALUES FROM ({start}) TO ({end})")
                )
            start = end


async def remove_old_entries(database: Database, entry_days: int, now: int) -> int:
    """Remove entries settled more than `entry_days` ago; give their number (SQLite) or that of dropped months.

    PostgreSQL drops whole months, which costs nothing, so up to a month more is kept there.
    """
    before = now - entry_days * MS_PER_DAY
    return await (_drop_months(database, before) if database.is_postgresql else _delete(database, before))


async def _drop_months(database: Database, before: int) -> int:
    last = _partition(month_start(before))
    async with database.write() as connection:
        await _only_one(connection)
        old = sorted(name for name in await _partitions(connection) if name < last)
        for name in old:
            # `old` holds names of the form entries_YYYY_MM only, see `_partitions`.
            await connection.execute(text(f"DROP TABLE {name}"))
    return len(old)


async def _delete(database: Database, before: int) -> int:
    table = tables.entries
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


async def _only_one(connection: AsyncConnection) -> None:
    # Dropping waits for readers, and everybody behind it for the drop: rather give up and come back later.
    await connection.execute(text("SET LOCAL lock_timeout = '3s'"))
    await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


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
    """Calls the above once an hour."""

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
        await make_partitions(self._database, now)
        if self._entry_days is not None:
            await remove_old_entries(self._database, self._entry_days, now)
        self._due = now + MS_PER_DAY // 24

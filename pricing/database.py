"""The one door to the database: SQLite in WAL mode, or PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection


class Database:
    """An async SQLAlchemy engine with this package's rules. Its repr shows no password."""

    is_postgresql: bool

    @classmethod
    async def open(cls, url: str, *, pool_size: int = 5) -> Database:
        """Connect to `sqlite:///path` or `postgresql://user:password@host/name` (or with +aiosqlite, +asyncpg).

        Raises InvalidSetting for any other URL, LedgerUnavailable where the database can't be reached.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Close every connection."""
        raise NotImplementedError

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for queries. Raises LedgerUnavailable for whatever says that the database is away."""
        raise NotImplementedError
        yield

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction, committed at the end. The same errors as `read`."""
        raise NotImplementedError
        yield

"""The group commits' way to the database, past SQLAlchemy's connections: the drivers' own.

What SQLAlchemy does around each execution takes ten times as long as SQLite needs for it, and longer than asyncpg does.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Final, Protocol, TypeVar

import asyncpg
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn

from storage.postgres_server import PostgreSQLServer
from storage.statements import Link, PostgreSQLLink

Result = TypeVar("Result")

# IMMEDIATE takes the write lock at once: a transaction that reads first and writes later could fail half-way.
BEGIN_WRITING: Final = "BEGIN IMMEDIATE"

_BUSY_MS_MAX: Final = 5_000
_BUSY_PAUSE_MS: Final = 2
_PEEK_MS_MAX: Final = 20  # a reader waits for nobody but in a file's first and last moments


class Driver(Protocol):
    """One connection for writing. Only one transaction at a time; the driver's errors pass through."""

    async def transact(self, work: Callable[[Link], Result]) -> Result:
        """What `work` returns, run in a write transaction that is committed after it."""
        ...

    async def close(self) -> None: ...


class PostgreSQLDriver:
    """A connection of asyncpg's, made when it is first needed and again after whatever failed on it."""

    def __init__(self, server: PostgreSQLServer) -> None:
        self._server = server
        self._connection: asyncpg.Connection | None = None

    async def transact(self, work: Callable[[Link], Result]) -> Result:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._server.connect()
        connection = self._connection
        try:
            await connection.execute(self._server.begin)
            # `work` is plain code; where it waits for the driver, this task does.
            result = await greenlet_spawn(work, PostgreSQLLink(connection))
            await connection.execute("COMMIT")
        except BaseException:
            # The server rolls back what is left open, and a connection with an unknown past isn't used again.
            connection.terminate()
            self._connection = None
            raise
        return result

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class SQLiteDriver:
    """Two connections of the driver's, one for writing, and a thread that waits for the disk.

    The statements themselves run in the event loop. They take microseconds each, in memory; a thread would fight with
    the loop over the interpreter's lock for longer than that.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._opened: list[sqlite3.Connection] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="farebox-sqlite")

    @cached_property
    def reader(self) -> sqlite3.Connection:
        return self._connect(_PEEK_MS_MAX)

    @cached_property
    def _writer(self) -> sqlite3.Connection:
        return self._connect(busy_ms_max=0)

    def _connect(self, busy_ms_max: int) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False)
        prepare_sqlite(connection, None, busy_ms_max)
        self._opened.append(connection)
        return connection

    async def transact(self, work: Callable[[Link], Result]) -> Result:
        connection = await self._begin()
        try:
            result = work(connection)
            await self._blocking(partial(connection.execute, "COMMIT"))
        except BaseException:
            await self._blocking(partial(_roll_back, connection))
            raise
        return result

    async def _begin(self) -> sqlite3.Connection:
        """Tries again while another process writes."""
        patience = time.monotonic() + _BUSY_MS_MAX / 1000
        while True:
            try:
                self._writer.execute(BEGIN_WRITING)
            except sqlite3.Error as error:
                if not _is_busy(error) or time.monotonic() > patience:
                    raise
            else:
                return self._writer
            await asyncio.sleep(_BUSY_PAUSE_MS / 1000)

    async def _blocking(self, call: Callable[[], object]) -> None:
        running = asyncio.get_running_loop().run_in_executor(self._thread, call)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})  # a thread can't be cancelled, and nobody may write beside it
            raise

    async def close(self) -> None:
        for connection in self._opened:
            await self._blocking(connection.close)
        self._thread.shutdown()


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def prepare_sqlite(
    connection: DBAPIConnection | sqlite3.Connection, _: ConnectionPoolEntry | None, busy_ms_max: int = _BUSY_MS_MAX
) -> None:
    connection.isolation_level = None  # the driver must not begin by itself
    # FULL: an fsync per commit. NORMAL would survive kill -9 as well, but a power cut could take the last commits, and
    # with them reservations whose tokens a client has already seen. The group commit shares the cost.
    settings = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", f"busy_timeout = {busy_ms_max}")
    try:
        cursor = connection.cursor()
        for setting in settings:
            cursor.execute(f"PRAGMA {setting}")
        cursor.close()
    except BaseException:
        connection.close()  # the pool does not have it yet
        raise

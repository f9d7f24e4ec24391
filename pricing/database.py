"""The one door to the database: SQLite in WAL mode, or PostgreSQL. Driver errors become ours here and only here."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from pricing.errors import InvalidSetting, LedgerUnavailable
from pricing.prepared import Link, PreparedValue

Result = TypeVar("Result")

_CONNECT_S_MAX: Final = 5
_STATEMENT_S_MAX: Final = 10  # a server that swallows packets must count as away, not hang every request
_BUSY_MS_MAX: Final = 5_000
_BUSY_PAUSE_MS: Final = 2
_PEEK_MS_MAX: Final = 20  # a reader waits for nobody but in a file's first and last moments
# IMMEDIATE takes the write lock at once: a transaction that reads first and writes later could fail half-way.
_BEGIN_WRITING: Final = "BEGIN IMMEDIATE"

# SQLSTATE -> what to say (https://www.postgresql.org/docs/current/errcodes-appendix.html). The longest prefix wins.
_POSTGRESQL_AWAY: Final = {
    "08": "the database can't be reached",
    "25006": "the database is read-only",
    "28": "the database refuses this user or password",
    "3D000": "the database does not exist on its server",
    "40": "the database gave up on a conflict",
    "53": "the database has run out of room or connections",
    "53100": "the disk is full",
    "55P03": "the database is locked",
    "57": "the database is stopping or starting",
    "58": "the database has a system error",
    "XX": "the database has an internal error",
}

# Primary result codes (https://www.sqlite.org/rescode.html); others are mistakes of ours and pass through.
_SQLITE_AWAY: Final = {
    sqlite3.SQLITE_BUSY: "the database is locked",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_NOMEM: "the machine has no memory left",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_IOERR: "the disk has an error",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "the database file can't be opened",
    sqlite3.SQLITE_PROTOCOL: "the database is locked",
    sqlite3.SQLITE_NOTADB: "the database file is damaged",
}


class Database:
    """An async SQLAlchemy engine with this package's rules. It belongs to one event loop; no password in its repr."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.is_postgresql = engine.dialect.name == "postgresql"
        # SQLite has one writer. Waiting for it here is fair and costs nothing; its own busy handler sleeps and polls.
        self._writing = None if self.is_postgresql else asyncio.Lock()
        self._sqlite = None if self.is_postgresql else _SQLite(engine.url.database or "")

    def __repr__(self) -> str:
        return f"Database({self._engine.url.render_as_string(hide_password=True)!r})"

    @classmethod
    async def open(cls, url: str, *, pool_size: int = 5) -> Database:
        """Connect to `sqlite:///path` or `postgresql://user:password@host/name` (+aiosqlite, +asyncpg allowed).

        Raises InvalidSetting for any other URL, LedgerUnavailable where the database can't be reached.
        """
        database = cls(_engine(_checked(url), pool_size))
        try:
            async with database.read() as connection:
                await connection.execute(text("SELECT 1"))
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
        if self._sqlite is not None:
            await self._sqlite.close()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for queries, in one transaction. LedgerUnavailable for whatever says the database is away."""
        with _mapped():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction, committed at the end. The same errors as `read`."""
        async with self._writing or nullcontext():
            with _mapped():
                async with self._engine.connect() as connection:
                    await connection.execution_options(farebox_writes=True)
                    async with connection.begin():
                        yield connection

    async def peek(self, value: PreparedValue) -> Any:
        """One value, in a transaction of its own; with SQLite without a thread's visit. The errors of `read`."""
        if self._sqlite is None:
            async with self.read() as connection:
                return await connection.run_sync(value.read)
        with _mapped():
            return value.read(self._sqlite.reader)

    async def transact(self, work: Callable[[Link], Result]) -> Result:
        """What `work` returns, run in a write transaction that is committed after it. The errors of `write`.

        For transactions of many statements that run all the time: with SQLite, `write` visits a thread for each. `work`
        runs statements of `pricing.prepared`.
        """
        if self._sqlite is None:
            async with self.write() as connection:
                return await connection.run_sync(work)
        async with self._writing or nullcontext():
            with _mapped():
                return await self._sqlite.transact(work)


class _SQLite:
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
        _prepare_sqlite(connection, None, busy_ms_max)
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
                self._writer.execute(_BEGIN_WRITING)
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


def padded(values: Sequence[int] | Sequence[str]) -> list[int] | list[str]:
    """Values for an `IN`, the last repeated up to a power of two, so that few different statements are prepared."""
    wanted = 1 << (len(values) - 1).bit_length()
    return [*values, *[values[-1]] * (wanted - len(values))]


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    drivers = {
        "sqlite": "sqlite+aiosqlite",
        "sqlite+aiosqlite": "sqlite+aiosqlite",
        "postgres": "postgresql+asyncpg",
        "postgresql": "postgresql+asyncpg",
        "postgresql+asyncpg": "postgresql+asyncpg",
    }
    if parsed is None or parsed.drivername not in drivers:
        # The URL may hold a password: it is not repeated.
        raise InvalidSetting(
            "The database URL must look like sqlite:///farebox.db or postgresql://user:password@host/name."
        )
    parsed = parsed.set(drivername=drivers[parsed.drivername])
    if parsed.drivername.startswith("sqlite"):
        path = parsed.database
        if not path or path.startswith((":memory:", "file:")):
            raise InvalidSetting("An SQLite database needs a path to a file, such as sqlite:///farebox.db.")
        if not Path(path).parent.is_dir():
            raise InvalidSetting(f"The folder {str(Path(path).parent)!r} for the SQLite file doesn't exist; make it.")
    return parsed


def _engine(url: URL, pool_size: int) -> AsyncEngine:
    if url.drivername.startswith("postgresql"):
        return create_async_engine(
            url,
            hide_parameters=True,
            pool_size=pool_size,
            max_overflow=0,  # a hard bound: a gateway must never exhaust the server's connections
            pool_timeout=_STATEMENT_S_MAX,
            connect_args={"timeout": _CONNECT_S_MAX, "command_timeout": _STATEMENT_S_MAX},
        )
    engine = create_async_engine(url, hide_parameters=True, pool_size=pool_size, max_overflow=0)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(
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


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("farebox_writes", False)
    connection.exec_driver_sql(_BEGIN_WRITING if writes else "BEGIN")


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = unavailable_reason(error)
        if reason is None:
            raise
        raise LedgerUnavailable(reason) from error


def unavailable_reason(error: BaseException) -> str | None:
    """Why this error means that the database is away, in words without names, hosts or SQL; None if it doesn't."""
    driver_error = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    sqlstate = getattr(driver_error, "sqlstate", None)
    if isinstance(sqlstate, str):
        return next((_POSTGRESQL_AWAY[sqlstate[:n]] for n in (5, 2) if sqlstate[:n] in _POSTGRESQL_AWAY), None)
    if isinstance(driver_error, sqlite3.Error):
        return _SQLITE_AWAY.get(getattr(driver_error, "sqlite_errorcode", 0) & 0xFF)
    if isinstance(driver_error, PoolTimeoutError | TimeoutError):
        return "the database did not answer in time"
    if isinstance(driver_error, OSError | asyncpg.InterfaceError | asyncpg.PostgresConnectionError):
        return "the database can't be reached"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "the database can't be reached"
    return None

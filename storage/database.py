"""The one door to the database: SQLite in WAL mode, or PostgreSQL. Driver errors become ours here and only here."""

from __future__ import annotations

import asyncio
import sqlite3
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from storage.drivers import BEGIN_WRITING, Driver, PostgreSQLDriver, Result, SQLiteDriver, prepare_sqlite
from storage.errors import InvalidSetting, LedgerUnavailable, RowsLocked
from storage.postgres_server import DatabaseTimes, PostgreSQLServer
from storage.postgres_url import read_postgres_url
from storage.statements import Link, PreparedValue
from storage.text import shorten

# SQLSTATE -> what to say (https://www.postgresql.org/docs/current/errcodes-appendix.html). The longest prefix wins.
_POSTGRESQL_AWAY: Final = {
    "08": "the database can't be reached",
    "25006": "the database is read-only",
    "25P03": "a transaction was idle for too long, and the database ended it",
    "28": "the database refuses this user or password",
    "3D000": "the database does not exist on its server",
    "40": "the database gave up on a conflict",
    "53": "the database has run out of room or connections",
    "53100": "the disk is full",
    "55P03": "another process holds the rows",
    "57": "the database is stopping or starting",
    "57014": "the database took too long for a statement",
    "58": "the database has a system error",
    "XX": "the database has an internal error",
}

_ROWS_LOCKED: Final = "55P03"

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

    def __init__(self, engine: AsyncEngine, driver: Driver) -> None:
        self._engine = engine
        self.is_postgresql = engine.dialect.name == "postgresql"
        self._driver = driver
        self._transacting = asyncio.Lock()
        # SQLite has one writer. Waiting for it here is fair and costs nothing; its own busy handler sleeps and polls.
        self._writing = nullcontext() if self.is_postgresql else self._transacting

    def __repr__(self) -> str:
        return f"Database({self._engine.url.render_as_string(hide_password=True)!r})"

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        pool_size: int = 5,
        times: DatabaseTimes = DatabaseTimes(),  # noqa: B008  (frozen)
    ) -> Database:
        """Connect to `sqlite:///path` or `postgresql://user:password@host/name` (+aiosqlite, +asyncpg allowed).

        Raises InvalidSetting for any other URL, LedgerUnavailable where the database can't be reached.
        """
        if url.startswith("postgres"):
            server = PostgreSQLServer(read_postgres_url(url), times)
            with _mapped():
                await server.look()
            database = cls(_postgresql_engine(server, pool_size), PostgreSQLDriver(server))
        else:
            sqlite_url = _checked(url)
            database = cls(_sqlite_engine(sqlite_url, pool_size), SQLiteDriver(sqlite_url.database or ""))
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
        await self._driver.close()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for queries, in one transaction. LedgerUnavailable for whatever says the database is away."""
        with _mapped():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction, committed at the end. The same errors as `read`."""
        async with self._writing:
            with _mapped():
                async with self._engine.connect() as connection:
                    await connection.execution_options(farebox_writes=True)
                    async with connection.begin():
                        yield connection

    async def peek(self, value: PreparedValue) -> Any:
        """One value, in a transaction of its own; with SQLite without a thread's visit. The errors of `read`."""
        if isinstance(self._driver, SQLiteDriver):
            with _mapped():
                return value.read(self._driver.reader)
        async with self.read() as connection:
            return await connection.run_sync(value.read)

    async def transact(self, work: Callable[[Link], Result]) -> Result:
        """What `work` returns, run in a write transaction that is committed after it. The errors of `write`.

        For transactions of many statements that run all the time, with statements of `storage.statements`. One at a
        time, on a connection beside the pool's.
        """
        async with self._transacting:
            with _mapped():
                return await self._driver.transact(work)


def padded(values: Sequence[int] | Sequence[str]) -> list[int] | list[str]:
    """Values for an `IN`, the last repeated up to a power of two, so that few different statements are prepared."""
    wanted = 1 << (len(values) - 1).bit_length()
    return [*values, *[values[-1]] * (wanted - len(values))]


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername not in ("sqlite", "sqlite+aiosqlite"):
        # The URL may hold a password: it is not repeated.
        raise InvalidSetting(
            "The database URL must look like sqlite:///farebox.db or postgresql://user:password@host/name."
        )
    path = parsed.database
    if not path or path.startswith((":memory:", "file:")):
        raise InvalidSetting("An SQLite database needs a path to a file, such as sqlite:///farebox.db.")
    if parsed.query:
        raise InvalidSetting(
            f"The database URL has the option {shorten(next(iter(parsed.query)))}; for SQLite there are none."
        )
    if not Path(path).parent.is_dir():
        raise InvalidSetting(f"The folder {str(Path(path).parent)!r} for the SQLite file doesn't exist; make it.")
    return parsed.set(drivername="sqlite+aiosqlite")


def _postgresql_engine(server: PostgreSQLServer, pool_size: int) -> AsyncEngine:
    statements: dict[str, object] = {"prepared_statement_cache_size": server.statements_kept}
    if server.statements_kept == 0:
        statements["prepared_statement_name_func"] = str  # the empty name: the next statement takes its place
    engine = create_async_engine(
        "postgresql+asyncpg://",
        hide_parameters=True,
        pool_size=pool_size,
        max_overflow=0,  # a hard bound: a gateway must never exhaust the server's connections
        pool_timeout=server.times.answer_s,
        connect_args={"async_creator_fn": server.connect, **statements},
    )
    if server.begin_query is not None:
        event.listen(engine.sync_engine, "begin", partial(_begin_postgresql, server.begin_query))
    return engine


def _sqlite_engine(url: URL, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(url, hide_parameters=True, pool_size=pool_size, max_overflow=0)
    event.listen(engine.sync_engine, "connect", prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _begin_postgresql(query: str, connection: Connection) -> None:
    connection.exec_driver_sql(query)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("farebox_writes", False)
    connection.exec_driver_sql(BEGIN_WRITING if writes else "BEGIN")


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = unavailable_reason(error)
        if reason is None:
            raise
        locked = sqlstate_of(error) == _ROWS_LOCKED
        raise (RowsLocked() if locked else LedgerUnavailable(reason)) from error


def sqlstate_of(error: BaseException) -> str | None:
    """PostgreSQL's code of the error, if it is one of its."""
    sqlstate = getattr(_driver_error(error), "sqlstate", None)
    return sqlstate if isinstance(sqlstate, str) else None


def _driver_error(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def unavailable_reason(error: BaseException) -> str | None:
    """Why this error means that the database is away, in words without names, hosts or SQL; None if it doesn't."""
    driver_error = _driver_error(error)
    if (sqlstate := sqlstate_of(error)) is not None:
        return next((_POSTGRESQL_AWAY[sqlstate[:n]] for n in (5, 2) if sqlstate[:n] in _POSTGRESQL_AWAY), None)
    if isinstance(driver_error, sqlite3.Error):
        return _SQLITE_AWAY.get(getattr(driver_error, "sqlite_errorcode", 0) & 0xFF)
    if isinstance(driver_error, PoolTimeoutError | TimeoutError):
        return "the database did not answer in time"
    if isinstance(driver_error, ssl.SSLError):
        return "the database's TLS or certificate isn't accepted"
    if isinstance(driver_error, OSError | asyncpg.InterfaceError | asyncpg.PostgresConnectionError):
        return "the database can't be reached"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "the database can't be reached"
    return None

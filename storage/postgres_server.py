"""Connections to PostgreSQL, straight or through a pooler such as PgBouncer.

Every transaction has limits of time that the server itself enforces, so that a process that freezes within one (a
paused machine, a lost network) gives its locks back, and nobody waits for them for long:

    lock_timeout                            a statement waits this long for rows that another process holds
    idle_in_transaction_session_timeout     a transaction may be idle this long; then its session ends
    statement_timeout                       a statement may take this long
    client_connection_check_interval        how often the server looks whether a client whose statement runs is there

A pooler in transaction mode gives each transaction whichever session is free. Nothing may then be left in a session: no
prepared statement with a name, and the limits are set in each transaction for itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import asyncpg

from storage.errors import InvalidSetting
from storage.postgres_url import PostgreSQLAddress

logger = logging.getLogger("farebox.database")

_STATEMENTS_KEPT: Final = 100
_ANSWER_S: Final = 2  # the server's own limit ends a statement first; this is for a server that doesn't answer
_CHECK: Final = "client_connection_check_interval"


@dataclass(frozen=True, slots=True)
class DatabaseTimes:
    """Limits of time in milliseconds. The defaults let others go on within 10 s of a process that freezes.

    - `lock_ms`: how long a statement waits for rows that another process holds.
    - `idle_ms`: how long a transaction may be idle.
    - `statement_ms`: how long a statement may take.
    """

    lock_ms: int = 2_000
    idle_ms: int = 5_000
    statement_ms: int = 8_000

    def __post_init__(self) -> None:
        if not 0 < self.lock_ms < self.statement_ms:
            raise InvalidSetting(
                f"A statement may take {self.statement_ms} ms in all and wait {self.lock_ms} ms for locks; the latter "
                "must be less, and more than 0."
            )

    @property
    def answer_s(self) -> int:
        """When to stop waiting for the server."""
        return -(-self.statement_ms // 1000) + _ANSWER_S

    def as_settings(self) -> dict[str, str]:
        """The server's settings, in the order in which they are best set."""
        return {
            "lock_timeout": str(self.lock_ms),
            "idle_in_transaction_session_timeout": str(self.idle_ms),
            "statement_timeout": str(self.statement_ms),
            _CHECK: str(self.lock_ms),
        }


class PostgreSQLServer:
    """Makes connections. `look` finds out, once, how they have to be."""

    def __init__(self, address: PostgreSQLAddress, times: DatabaseTimes) -> None:
        self.address = address
        self.times = times
        self.pooled = False
        self._settings: dict[str, str] = {}

    @property
    def statements_kept(self) -> int:
        """How many prepared statements a connection keeps; 0: none has a name."""
        if self.address.statements_kept is not None:
            return self.address.statements_kept
        return 0 if self.pooled else _STATEMENTS_KEPT

    @property
    def begin(self) -> str:
        """What begins a transaction, in one message."""
        return "; ".join(["BEGIN", *(f"SET LOCAL {name} = {value}" for name, value in self._local().items())])

    @property
    def begin_query(self) -> str | None:
        """What is to run first in a transaction that another has begun, if anything."""
        calls = [f"set_config('{name}', '{value}', true)" for name, value in self._local().items()]
        return f"SELECT {', '.join(calls)}" if calls else None

    def _local(self) -> dict[str, str]:
        return self._settings if self.pooled else {}

    async def look(self) -> None:
        """Find out whether a pooler is in between and which limits the server knows.

        Raises InvalidSetting where the address can't be used as it is, and whatever asyncpg raises where the server
        can't be reached.
        """
        try:
            connection = await self._connect(statements_kept=0, settings={})
        except asyncpg.exceptions.ProtocolViolationError as error:
            if "startup parameter" not in str(error):
                raise
            raise InvalidSetting(
                "The pooler in front of the database takes no `options`; leave them out of the database URL, or let it "
                "pass them on (PgBouncer: ignore_startup_parameters)."
            ) from None
        except ValueError as error:  # asyncpg's ClientConfigurationError is one
            raise InvalidSetting(f"The database URL can't be used: {error}.") from None
        try:
            await self._look_with(connection)
        except asyncpg.exceptions.PostgresError as error:
            if "statement pooling mode" not in str(error):
                raise
            raise InvalidSetting(
                "The pooler in front of the database is in statement mode, without transactions; set its pool_mode "
                "to transaction or session."
            ) from None
        finally:
            connection.terminate()

    async def _look_with(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            # A pooler shows its clients a made-up process id.
            backend = await connection.fetchval("SELECT pg_backend_pid()")
            known = await connection.fetch("SELECT name FROM pg_settings WHERE name = ANY($1)", [*self._wanted()])
        found_pooler = backend != connection.get_server_pid()
        self.pooled = found_pooler if self.address.pooled is None else self.address.pooled
        names = {row["name"] for row in known}
        if self.pooled:
            names.discard(_CHECK)  # the server's client is the pooler, which is there
            logger.info("a pooler is in front of the database: no prepared statement is kept")
        elif _CHECK in names and not await _can_check(connection):
            names.discard(_CHECK)
        self._settings = {name: value for name, value in self._wanted().items() if name in names}

    def _wanted(self) -> dict[str, str]:
        """The limits that the URL's own `options` don't set."""
        return {name: value for name, value in self.times.as_settings().items() if name not in self.address.options}

    async def connect(self, *_: object, **__: object) -> asyncpg.Connection:
        """A connection; the arguments, which SQLAlchemy gives, are in the address already."""
        return await self._connect(self.statements_kept, {} if self.pooled else self._settings)

    async def _connect(self, statements_kept: int, settings: dict[str, str]) -> asyncpg.Connection:
        address = self.address
        more = {"application_name": address.application_name}
        if address.options:
            more["options"] = address.options
        return await asyncpg.connect(
            address.dsn,
            user=address.user,
            password=address.password,
            timeout=address.connect_s,
            command_timeout=self.times.answer_s,
            statement_cache_size=statements_kept,
            server_settings=more | settings,
        )


async def _can_check(connection: asyncpg.Connection) -> bool:
    """Only where the server's system can tell that a connection was closed."""
    try:
        await connection.execute(f"SET {_CHECK} = '1s'")
    except asyncpg.exceptions.InvalidParameterValueError:
        return False
    return True

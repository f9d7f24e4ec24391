"""The few statements that run all the time: those of every group commit, and one that looks for new keys.

SQLAlchemy writes them for both databases. What it does around each execution takes ten times as long as SQLite needs
for it (50 and 5 microseconds) and three times as long as asyncpg does, and with few requests a second there is a
commit for each; so where they get a connection of a driver's own, the text goes straight there. Everywhere else
SQLAlchemy executes it.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, Protocol

import asyncpg
from sqlalchemy import Connection, Dialect, Insert, Select, Update
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import asyncpg as postgresql
from sqlalchemy.sql.dml import ReturningDelete
from sqlalchemy.sql.selectable import CompoundSelect
from sqlalchemy.util import await_only

_SQLITE: Final = sqlite.dialect(paramstyle="named")
_POSTGRESQL: Final[Dialect] = postgresql.dialect()  # type: ignore[no-untyped-call]


class PostgreSQLLink:
    """asyncpg's connection for code that isn't asynchronous; it must run in SQLAlchemy's `greenlet_spawn`."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    def fetch(self, text: str, values: Sequence[Any]) -> Sequence[asyncpg.Record]:
        """The rows of a query; `values` for $1, $2 and so on."""
        rows: Sequence[asyncpg.Record] = await_only(self._connection.fetch(text, *values))
        return rows

    def run(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """A change for each of many rows, in one round trip."""
        await_only(self._connection.executemany(text, rows))


Link = Connection | sqlite3.Connection | PostgreSQLLink
Query = Select[Any] | CompoundSelect[Any] | ReturningDelete[Any]
Change = Insert | Update


class Row(Protocol):
    """What SQLAlchemy's rows and ours have in common: columns as attributes."""

    def __getattr__(self, name: str) -> Any: ...

    def _asdict(self) -> dict[str, Any]: ...


def dialect_of(connection: Link) -> str:
    """`sqlite` or `postgresql`."""
    if isinstance(connection, Connection):
        return connection.dialect.name
    return "sqlite" if isinstance(connection, sqlite3.Connection) else "postgresql"


class PreparedQuery:
    """A statement that gives rows, with one parameter that is a list: `ids`."""

    def __init__(self, statement: Query) -> None:
        self._statement = statement
        self._sqlite_text = cache(self._sqlite_text_for)
        self._postgresql_text = cache(self._postgresql_text_for)
        self._row: Any = None

    def rows(self, connection: Link, ids: Sequence[int] | Sequence[str], **parameters: int) -> Sequence[Row]:
        """Execute it. `ids` isn't empty; give it in few different lengths (`storage.database.padded`)."""
        if isinstance(connection, Connection):
            return connection.execute(self._statement, {"ids": ids, **parameters}).all()
        values = {f"ids_{number}": one for number, one in enumerate(ids, start=1)} | parameters
        if isinstance(connection, sqlite3.Connection):
            cursor = connection.execute(self._sqlite_text(len(ids)), values)
            return self._named([column[0] for column in cursor.description], cursor)
        text, names = self._postgresql_text(len(ids))
        records = connection.fetch(text, [values[name] for name in names])
        return self._named(list(records[0].keys()), records) if records else []

    def _named(self, columns: list[str], rows: Iterable[Iterable[Any]]) -> list[Row]:
        if self._row is None:
            self._row = namedtuple("Row", columns)  # type: ignore[misc]
        return list(map(self._row._make, rows))

    def _sqlite_text_for(self, ids: int) -> str:
        return str(self._expanded(_SQLITE, ids).statement)

    def _postgresql_text_for(self, ids: int) -> tuple[str, list[str]]:
        expanded = self._expanded(_POSTGRESQL, ids)
        return expanded.statement, expanded.positiontup

    def _expanded(self, dialect: Dialect, ids: int) -> Any:
        compiled: Any = self._statement.compile(dialect=dialect)
        return compiled.construct_expanded_state(dict.fromkeys(compiled.params) | {"ids": list(range(ids))})


class PreparedChange:
    """A statement that is run for each of many rows, all with the same columns."""

    def __init__(self, statement: Change) -> None:
        self._statement = statement
        self._texts: dict[str, tuple[str, list[str]]] = {}

    def run(self, connection: Link, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it; `rows` isn't empty."""
        if isinstance(connection, Connection):
            connection.execute(self._statement, rows)
        elif isinstance(connection, sqlite3.Connection):
            connection.executemany(self._text(_SQLITE, rows[0])[0], rows)
        else:
            text, names = self._text(_POSTGRESQL, rows[0])
            connection.run(text, [[row[name] for name in names] for row in rows])

    def _text(self, dialect: Dialect, row: Mapping[str, Any]) -> tuple[str, list[str]]:
        if (known := self._texts.get(dialect.name)) is None:
            compiled: Any = self._statement.compile(dialect=dialect, column_keys=list(row))
            known = self._texts[dialect.name] = str(compiled), compiled.positiontup or []
        return known


class PreparedValue:
    """A statement without parameters that gives one value."""

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._text = str(statement.compile(dialect=_SQLITE))

    def read(self, connection: Connection | sqlite3.Connection) -> Any:
        """Execute it."""
        if isinstance(connection, Connection):
            return connection.execute(self._statement).scalar_one()
        return connection.execute(self._text).fetchone()[0]

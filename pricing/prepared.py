"""The few statements that run all the time: those of every group commit, and one that looks for new keys.

SQLAlchemy writes them for both databases. What it does around each execution takes ten times as long as SQLite needs
for it (50 and 5 microseconds), and with few requests a second there is a commit for each; so where they get a
connection of SQLite's own driver, the text goes straight there. Everywhere else SQLAlchemy executes it.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Insert, Select, Update
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.dml import ReturningDelete
from sqlalchemy.sql.selectable import CompoundSelect

_DIALECT: Final = sqlite.dialect(paramstyle="named")

Link = Connection | sqlite3.Connection
Query = Select[Any] | CompoundSelect[Any] | ReturningDelete[Any]
Change = Insert | Update


class Row(Protocol):
    """What SQLAlchemy's rows and ours have in common: columns as attributes."""

    def __getattr__(self, name: str) -> Any: ...

    def _asdict(self) -> dict[str, Any]: ...


class PreparedQuery:
    """A statement that gives rows, with one parameter that is a list: `ids`."""

    def __init__(self, statement: Query) -> None:
        self._statement = statement
        self._text = cache(self._text_for)
        self._row: Any = None

    def rows(self, connection: Link, ids: Sequence[int] | Sequence[str], **parameters: int) -> Sequence[Row]:
        """Execute it. `ids` isn't empty; give it in few different lengths (`pricing.database.padded`)."""
        if isinstance(connection, Connection):
            return connection.execute(self._statement, {"ids": ids, **parameters}).all()
        numbered = {f"ids_{number}": one for number, one in enumerate(ids, start=1)}
        cursor = connection.execute(self._text(len(ids)), {**numbered, **parameters})
        if self._row is None:
            self._row = namedtuple("Row", [column[0] for column in cursor.description])  # type: ignore[misc]
        return list(map(self._row._make, cursor))

    def _text_for(self, ids: int) -> str:
        compiled: Any = self._statement.compile(dialect=_DIALECT)
        values = dict.fromkeys(compiled.params) | {"ids": list(range(ids))}
        return str(compiled.construct_expanded_state(values).statement)


class PreparedChange:
    """A statement that is run for each of many rows, all with the same columns."""

    def __init__(self, statement: Change) -> None:
        self._statement = statement
        self._text = ""

    def run(self, connection: Link, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it; `rows` isn't empty."""
        if isinstance(connection, Connection):
            connection.execute(self._statement, rows)
            return
        if not self._text:
            self._text = str(self._statement.compile(dialect=_DIALECT, column_keys=list(rows[0])))
        connection.executemany(self._text, rows)


class PreparedValue:
    """A statement without parameters that gives one value."""

    def __init__(self, statement: Select[Any]) -> None:
        self._statement = statement
        self._text = str(statement.compile(dialect=_DIALECT))

    def read(self, connection: Link) -> Any:
        """Execute it."""
        if isinstance(connection, Connection):
            return connection.execute(self._statement).scalar_one()
        return connection.execute(self._text).fetchone()[0]

"""Requests one by one, the latest first, and what only they can tell. Never what was said: nobody keeps it."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select, tuple_

from pricing import tables
from pricing.cost import Tokens
from pricing.money import Picodollars
from pricing.tier import Tier
from storage.database import Database

_E = tables.entries.c


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One request that has ended. Times in milliseconds since 1970 UTC, `cost` in picodollars."""

    request_id: str
    key_id: int
    model: str
    route: str
    user: str | None
    started_at: int
    settled_at: int
    state: str
    outcome: str
    reason: str | None
    tier: Tier
    tokens: Tokens
    cost: Picodollars

    @property
    def cursor(self) -> str:
        """Where the page after it begins."""
        return f"{self.settled_at}.{self.request_id}"


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which requests: of a key, an account or a model; settled from `since` to before `until`, in milliseconds."""

    key_id: int | None = None
    account_id: int | None = None
    model: str | None = None
    since: int = 0
    until: int | None = None

    def conditions(self) -> builtins.list[ColumnElement[bool]]:
        wanted: builtins.list[ColumnElement[bool]] = [_E.settled_at >= self.since]
        if self.until is not None:
            wanted.append(_E.settled_at < self.until)
        for column, value in ((_E.key_id, self.key_id), (_E.account_id, self.account_id), (_E.model, self.model)):
            if value is not None:
                wanted.append(column == value)
        return wanted


@dataclass(frozen=True, slots=True)
class UserTotal:
    """What one end user came to; `user` None for requests that named nobody."""

    user: str | None
    requests: int
    tokens: Tokens
    cost: Picodollars


class RequestLog:
    """Queries. They reach as far back as entries are kept."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, which: LogFilter, *, before: str = "", count_max: int = 100) -> builtins.list[LogEntry]:
        """The latest first; `before` is the `cursor` of the last one seen."""
        query = select(tables.entries).where(*which.conditions())
        settled_at, _, request_id = before.partition(".")
        if settled_at.isdecimal() and len(settled_at) < 16 and "\0" not in request_id:
            query = query.where(tuple_(_E.settled_at, _E.request_id) < (int(settled_at), request_id))
        query = query.order_by(_E.settled_at.desc(), _E.request_id.desc()).limit(count_max)
        async with self._database.read() as connection:
            return [_entry(row) for row in await connection.execute(query)]

    async def outcomes(self, which: LogFilter) -> dict[str, int]:
        """How many ended how, void ones too."""
        query = select(_E.outcome, func.count()).where(*which.conditions()).group_by(_E.outcome)
        async with self._database.read() as connection:
            return {str(outcome): int(count) for outcome, count in await connection.execute(query)}

    async def users(self, which: LogFilter, count_max: int = 100) -> Sequence[UserTotal]:
        """End users, those with the largest cost first; void requests count nowhere."""
        sums = [func.sum(column) for column in (_E.prompt_tokens, _E.cached_tokens, _E.completion_tokens)]
        query = (
            select(_E.end_user, func.count(), *sums, func.sum(_E.cost).label("total"))
            .where(*which.conditions(), _E.state != "void")
            .group_by(_E.end_user)
            .order_by(func.sum(_E.cost).desc(), _E.end_user)
            .limit(count_max)
        )
        async with self._database.read() as connection:
            return [
                UserTotal(
                    row[0], int(row[1]), Tokens(int(row[2]), int(row[3]), int(row[4])), Picodollars(int(row.total))
                )
                for row in await connection.execute(query)
            ]


def _entry(row: Row[Any]) -> LogEntry:
    return LogEntry(
        row.request_id,
        row.key_id,
        row.model,
        row.route,
        row.end_user,
        row.started_at,
        row.settled_at,
        row.state,
        row.outcome,
        row.reason,
        Tier(row.tier),
        Tokens(row.prompt_tokens, row.cached_tokens, row.completion_tokens),
        Picodollars(row.cost),
    )

"""Questions to the ledger: what was spent, by whom, on what; and one request by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal

from sqlalchemy import Row, Select, Table, func, select

from pricing import tables
from pricing.cost import Tokens, cost
from pricing.money import Picodollars
from pricing.price import Price
from pricing.tier import Tier
from storage.database import Database

Dimension = Literal["day", "account", "key", "model"]
State = Literal["running", "settled", "interrupted", "void"]

_COLUMN_OF: Final[dict[Dimension, str]] = {
    "day": "day",
    "account": "account_id",
    "key": "key_id",
    "model": "model",
}
_SUMS: Final = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cost")


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """One row of totals; the dimensions that were not asked for are None. `day` is "2026-11-20", UTC."""

    day: str | None
    account_id: int | None
    key_id: int | None
    model: str | None
    requests: int
    tokens: Tokens
    cost: Picodollars


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request. While it runs, `tokens` is the last checkpoint, `cost` what that costs so far, `settled_at` None.
    Times in milliseconds since 1970 UTC. `reserved` is what was held for it, in picodollars, as is `cost`."""

    request_id: str
    account_id: int
    key_id: int
    model: str
    route: str
    user: str | None
    state: State
    outcome: str | None
    reason: str | None
    price: Price
    tokens: Tokens
    reserved: Picodollars
    cost: Picodollars
    started_at: int
    reserved_at: int
    settled_at: int | None
    tier: Tier = Tier.DEFAULT


class Usage:
    """Queries. Totals come from the daily roll-up, so they cover all time whatever the retention of entries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def totals(
        self,
        by: Sequence[Dimension] = (),
        *,
        since: date | None = None,
        until: date | None = None,
        account_id: int | None = None,
        key_id: int | None = None,
        model: str | None = None,
    ) -> list[UsageTotal]:
        """Sums by any of day, account, key and model, ordered by them; `since` and `until` are UTC days, inclusive.

        A request belongs to the day of its reservation; void ones count nowhere. An empty `by` gives exactly one row.
        """
        table = tables.usage_daily.c
        places = [table[_COLUMN_OF[dimension]] for dimension in dict.fromkeys(by)]
        query = select(*places, *(func.coalesce(func.sum(table[name]), 0).label(name) for name in _SUMS))
        for column, wanted in ((table.account_id, account_id), (table.key_id, key_id), (table.model, model)):
            if wanted is not None:
                query = query.where(column == wanted)
        if since is not None:
            query = query.where(table.day >= since.isoformat())
        if until is not None:
            query = query.where(table.day <= until.isoformat())
        async with self._database.read() as connection:
            rows = await connection.execute(query.group_by(*places).order_by(*places))
            return [_total(row) for row in rows]

    async def request(
        self, request_id: str, *, account_id: int | None = None, key_id: int | None = None
    ) -> RequestRecord | None:
        """One request, running or done; None if there is none, or it is not of this account or key."""

        def asked(table: Table) -> Select[Any]:
            query = select(table).where(table.c.request_id == request_id)
            if account_id is not None:
                query = query.where(table.c.account_id == account_id)
            return query if key_id is None else query.where(table.c.key_id == key_id)

        done = asked(tables.entries).order_by(tables.entries.c.settled_at.desc()).limit(1)
        async with self._database.read() as connection:
            # In this order: between two queries a request may only move from the first table to the second.
            running = (await connection.execute(asked(tables.reservations))).one_or_none()
            entry = None if running else (await connection.execute(done)).one_or_none()
        if running is not None:
            return _record(running, "running", None, None, None, None)
        if entry is None:
            return None
        return _record(entry, entry.state, entry.outcome, entry.reason, entry.cost, entry.settled_at)


def _total(row: Row[Any]) -> UsageTotal:
    given = row._mapping
    return UsageTotal(
        given.get("day"),
        given.get("account_id"),
        given.get("key_id"),
        given.get("model"),
        int(row.requests),  # PostgreSQL sums BIGINTs into NUMERICs
        Tokens(int(row.prompt_tokens), int(row.cached_tokens), int(row.completion_tokens)),
        Picodollars(int(row.cost)),
    )


def _record(
    row: Row[Any],
    state: State,
    outcome: str | None,
    reason: str | None,
    charged: int | None,
    settled_at: int | None,
) -> RequestRecord:
    price = Price(row.price_input, row.price_output, row.price_cached_input)
    tokens = Tokens(row.prompt_tokens, row.cached_tokens, row.completion_tokens)
    return RequestRecord(
        row.request_id,
        row.account_id,
        row.key_id,
        row.model,
        row.route,
        row.end_user,
        state,
        outcome,
        reason,
        price,
        tokens,
        Picodollars(row.amount),
        Picodollars(charged) if charged is not None else cost(price, tokens),
        row.started_at,
        row.reserved_at,
        settled_at,
        Tier(row.tier),
    )

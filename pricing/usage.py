"""Questions to the ledger: what was spent, by whom, on what; and one request by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Label, Row, Select, Table, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pricing import tables
from pricing.clock import MS_PER_DAY, day_name, iso_time, start_of
from pricing.cost import Tokens, cost
from pricing.money import Picodollars
from pricing.price import Price
from pricing.tier import Tier
from storage.database import Database
from storage.errors import InvalidSetting

Dimension = Literal["day", "hour", "account", "key", "model", "user"]
State = Literal["running", "settled", "interrupted", "void"]

_MS_PER_HOUR: Final = 3_600_000
DIMENSIONS: Final[tuple[Dimension, ...]] = ("day", "hour", "account", "key", "model", "user")
_COLUMN_OF: Final = {"account": "account_id", "key": "key_id", "model": "model", "user": "end_user"}


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """One row of totals; the dimensions that were not asked for are None. `day` is "2026-11-20", `hour`
    "2026-11-20T13:00:00.000Z", both UTC. `user` is None, too, for requests that named no end user."""

    day: str | None
    account_id: int | None
    key_id: int | None
    model: str | None
    requests: int
    tokens: Tokens
    cost: Picodollars
    hour: str | None = None
    user: str | None = None


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
    """Queries. Totals come from the sums that are kept with the entries, so they cover all time whatever the retention
    of entries, and cost what the sums are, not what the entries are."""

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
        user: str | None = None,
    ) -> list[UsageTotal]:
        """Sums by any of the dimensions, ordered by them; `since` and `until` are UTC days, inclusive.

        A request belongs to the day and hour of its reservation; void ones count nowhere. An empty `by` gives exactly
        one row. Raises InvalidSetting for hours of end users, which are told apart by days only.
        """
        by = tuple(dict.fromkeys(by))
        if "hour" in by and ("user" in by or user is not None):
            raise InvalidSetting("End users are told apart by the day; leave out `hour` or `user`.")
        table = tables.usage.c
        bounds = [
            column == wanted
            for column, wanted in ((table.account_id, account_id), (table.key_id, key_id), (table.model, model))
            if wanted is not None
        ]
        if since is not None:
            bounds.append(table.start >= start_of(since))
        if until is not None:
            bounds.append(table.start < start_of(until) + MS_PER_DAY)
        grain = tables.QUARTER if "hour" in by else tables.DAY
        async with self._database.read() as connection:
            if user is not None:
                return await _rows(connection, tables.USER, by, [*bounds, table.end_user == user])
            if "user" not in by:
                return await _rows(connection, grain, by, bounds)
            named = await _rows(connection, tables.USER, by, bounds)
            everybody = await _rows(connection, grain, tuple(one for one in by if one != "user"), bounds)
        return sorted(named + _nameless(everybody, named), key=lambda total: _order(total, by))

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


async def _rows(
    connection: AsyncConnection, grain: str, by: Sequence[Dimension], bounds: Sequence[ColumnElement[bool]]
) -> list[UsageTotal]:
    table = tables.usage.c
    places: list[Label[Any]] = []
    for dimension in by:
        if dimension == "day":
            places.append((table.start - table.start % MS_PER_DAY).label("day"))
        elif dimension == "hour":
            places.append((table.start - table.start % _MS_PER_HOUR).label("hour"))
        else:
            places.append(table[_COLUMN_OF[dimension]].label(_COLUMN_OF[dimension]))
    sums = (func.coalesce(func.sum(table[name]), 0).label(name) for name in tables.SUMS)
    query = select(*places, *sums).where(table.grain == grain, *bounds)
    labels: list[ColumnElement[Any]] = [literal_column(place.name) for place in places]
    return [_total(row) for row in await connection.execute(query.group_by(*labels).order_by(*labels))]


def _total(row: Row[Any]) -> UsageTotal:
    given = row._mapping
    return UsageTotal(
        None if (day := given.get("day")) is None else day_name(int(day)),
        given.get("account_id"),
        given.get("key_id"),
        given.get("model"),
        int(row.requests),  # PostgreSQL sums BIGINTs into NUMERICs
        Tokens(int(row.prompt_tokens), int(row.cached_tokens), int(row.completion_tokens)),
        Picodollars(int(row.cost)),
        None if (hour := given.get("hour")) is None else iso_time(int(hour)),
        given.get("end_user"),
    )


def _place(total: UsageTotal) -> tuple[object, ...]:
    return total.day, total.account_id, total.key_id, total.model


def _nameless(everybody: Sequence[UsageTotal], named: Sequence[UsageTotal]) -> list[UsageTotal]:
    """What is left of each total without those who have a name."""
    rest = {_place(total): total for total in everybody}
    for one in named:
        total = rest[_place(one)]
        rest[_place(one)] = replace(
            total,
            requests=total.requests - one.requests,
            tokens=Tokens(
                total.tokens.prompt - one.tokens.prompt,
                total.tokens.cached - one.tokens.cached,
                total.tokens.completion - one.tokens.completion,
            ),
            cost=Picodollars(total.cost - one.cost),
        )
    return [total for total in rest.values() if total.requests]


def _order(total: UsageTotal, by: Sequence[Dimension]) -> list[Any]:
    values = {
        "day": total.day,
        "account": total.account_id,
        "key": total.key_id,
        "model": total.model,
        "user": total.user or "",
    }
    return [values[dimension] for dimension in by]


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

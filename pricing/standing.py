"""The rows that hold money: locked in one order, changed in memory, written back."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, Table, bindparam, func, select, update

from pricing import tables
from pricing.balance import Balance, Limit, LimitBalance, LimitKind, limits_json, limits_of, percent_of
from pricing.errors import InsufficientFunds, Scope
from pricing.money import PICODOLLARS_MAX, Picodollars
from storage.database import padded
from storage.statements import Link, PreparedChange, PreparedQuery

_FOREVER: Final = 1 << 62


@dataclass(slots=True)
class Window:
    """One limit of a locked row, in its current period. A request counts in it if it is to a model that the limit is
    for, and its `reserved_at` lies in the period."""

    limit: Limit
    start: int
    spent: int = 0
    reserved: int = 0

    def enter(self, now: int) -> None:
        """Move on to the period of `now`, never back."""
        start = self.limit.period_start(now)
        if start > self.start:
            self.start, self.spent, self.reserved = start, 0, 0

    def counts(self, model: str, reserved_at: int) -> bool:
        """Whether a request is one of this period's."""
        return reserved_at >= self.start and self.limit.applies(model)

    @property
    def left(self) -> int:
        """What a reservation may take; negative where the limit was lowered."""
        return self.limit.amount - self.spent - self.reserved

    def balance(self) -> LimitBalance:
        """A copy that stays as it is."""
        end = self.limit.period(self.start)[1]
        return LimitBalance(self.limit, self.start, end, Picodollars(self.spent), Picodollars(self.reserved))

    def refuses(self, amount: int) -> bool:
        """Whether `amount` doesn't fit into what is left."""
        return amount > self.left


def refusal(full: Sequence[tuple[Window, int]], amount: Picodollars, scope: Scope) -> InsufficientFunds:
    """The error that names, of these limits and what each has left, the one that opens last."""

    def opens_at(window: Window) -> int | None:
        return None if amount > window.limit.amount else window.limit.period(window.start)[1]

    window, left = max(full, key=lambda one: (opens_at(one[0]) or _FOREVER, -one[1]))
    most = Picodollars(max(0, min(left, PICODOLLARS_MAX)))
    return InsufficientFunds(amount, most, scope, window.limit, opens_at(window))


@dataclass(slots=True)
class Standing:
    """One locked row of `accounts` or `keys`. `reserved` and `spent_total` are over all models and times."""

    id: int
    name: str
    windows: list[Window]
    reserved: int
    spent_total: int

    @property
    def latest_start(self) -> int:
        """When the youngest of the current periods began."""
        return max((window.start for window in self.windows), default=0)

    def enter(self, now: int) -> None:
        """Move each limit on to the period of `now`, never back."""
        for window in self.windows:
            window.enter(now)

    def require(self, amount: Picodollars, model: str, scope: Scope) -> None:
        """Raise InsufficientFunds unless `amount` fits into every limit that applies."""
        for window in self.windows:
            if window.refuses(amount) and window.limit.applies(model):
                every = [(one, one.left) for one in self.windows if one.refuses(amount) and one.limit.applies(model)]
                raise refusal(every, amount, scope)
        # The bound of BIGINT, which no limit at all would run into at 9.2 million USD.
        if amount > (room := PICODOLLARS_MAX - self.spent_total - self.reserved):
            raise InsufficientFunds(amount, Picodollars(max(0, room)), scope)

    def hold(self, amount: int, model: str) -> None:
        """Reserve what `require` allowed."""
        self.reserved += amount
        for window in self.windows:
            if window.limit.applies(model):
                window.reserved += amount

    def release(self, amount: int, cost: int, model: str, reserved_at: int) -> None:
        """Turn a reservation into its cost. One from an earlier period was charged to that period's limit."""
        self.reserved -= amount
        self.spent_total += cost
        for window in self.windows:
            if window.counts(model, reserved_at):
                window.reserved -= amount
                window.spent += cost

    def balance(self) -> Balance:
        """A copy that stays as it is."""
        limits = tuple(window.balance() for window in self.windows)
        return Balance(limits, Picodollars(self.spent_total), Picodollars(self.reserved))

    def columns(self) -> dict[str, object]:
        """The columns that change with the money."""
        windows = self.windows
        return {
            "standings": json.dumps([[one.start, one.spent, one.reserved] for one in windows]),
            "fullest": max((percent_of(one.spent + one.reserved, one.limit.amount) for one in windows), default=0),
            "reserved": self.reserved,
            "spent_total": self.spent_total,
        }


def standing_of(row: Row[Any] | Any) -> Standing:
    """What a row of `accounts` or `keys` says."""
    windows = [
        Window(limit, *stands) for limit, stands in zip(limits_of(row.limits), json.loads(row.standings), strict=True)
    ]
    return Standing(row.id, row.name, windows, row.reserved, row.spent_total)


def balance_of(row: Row[Any], now: int) -> Balance:
    """The balance in a row of `accounts` or `keys`, as of `now`."""
    return standing_of(row).balance().at(now)


def fresh_columns(limits: Sequence[Limit], now: int) -> dict[str, object]:
    """The columns of a row to which nothing has happened yet."""
    standing = Standing(0, "", [Window(limit, limit.period_start(now)) for limit in limits], 0, 0)
    return {"limits": limits_json(limits), **standing.columns()}


def lock(connection: Link, table: Table, ids: Iterable[int], *, skip_locked: bool = False) -> dict[int, Standing]:
    """Lock these rows in the order of their ids (SQLite has locked everything already) and read them.

    With `skip_locked` those that another process holds are left out, instead of waited for; see `held_by_others`.
    """
    ordered = sorted(set(ids))
    if not ordered:
        return {}
    statement = (_LOCK_FREE if skip_locked else _LOCK)[table]
    return {row.id: standing_of(row) for row in statement.rows(connection, padded(ordered))}


def held_by_others(connection: Link, table: Table, ids: Iterable[int], locked: Container[int]) -> set[int]:
    """Those of these rows that a `lock` with `skip_locked` left out although they are there."""
    missing = sorted(row_id for row_id in set(ids) if row_id not in locked)
    return {row.id for row in _THERE[table].rows(connection, padded(missing))} if missing else set()


def write_back(connection: Link, table: Table, standings: Iterable[Standing]) -> None:
    """Store what changed in locked rows."""
    values = [{"row_id": standing.id, **standing.columns()} for standing in standings]
    if values:
        _WRITE_BACK[table].run(connection, values)


def _lock(table: Table, *, skip_locked: bool = False) -> Select[Any]:
    columns = table.c
    return (
        select(
            columns.id,
            columns.name,
            columns.limits,
            columns.standings,
            columns.reserved,
            columns.spent_total,
        )
        .where(columns.id.in_(bindparam("ids", expanding=True)))
        .order_by(columns.id)
        .with_for_update(key_share=True, skip_locked=skip_locked)
    )


# Each group commit runs statements of these: they are built once.
_TABLES: Final = (tables.accounts, tables.keys)
_LOCK: Final = {table: PreparedQuery(_lock(table)) for table in _TABLES}
_LOCK_FREE: Final = {table: PreparedQuery(_lock(table, skip_locked=True)) for table in _TABLES}
_THERE: Final = {
    table: PreparedQuery(select(table.c.id).where(table.c.id.in_(bindparam("ids", expanding=True))))
    for table in _TABLES
}
_WRITE_BACK: Final = {
    table: PreparedChange(update(table).where(table.c.id == bindparam("row_id"))) for table in _TABLES
}


def replace_limits(connection: Connection, table: Table, row_id: int, limits: Sequence[Limit], now: int) -> Balance:
    """Give a row (locked here) other limits, and count what the period of each new one has seen so far.

    A limit that only has another amount goes on where it stands. The sums come from `usage` and
    `reservations`, which nobody changes without this row's lock.
    """
    standing = lock(connection, table, [row_id])[row_id]
    standing.enter(now)
    before = {window.limit.identity: window for window in standing.windows}
    owner = "account_id" if table is tables.accounts else "key_id"
    windows = []
    for limit in limits:
        if (known := before.get(limit.identity)) is None:
            windows.append(_counted(connection, owner, row_id, limit, now))
        else:
            windows.append(Window(limit, known.start, known.spent, known.reserved))
    standing.windows = windows
    write_back(connection, table, [standing])
    connection.execute(update(table).where(table.c.id == row_id).values(limits=limits_json(limits)))
    return standing.balance()


def _counted(connection: Connection, owner: str, row_id: int, limit: Limit, now: int) -> Window:
    """A new limit, and what its period has seen so far."""
    running, usage = tables.reservations.c, tables.usage.c
    if limit.kind is LimitKind.PREPAID:
        # Credit counts from now: what ran or was spent before belongs to the limit before.
        latest = select(func.max(running.reserved_at)).where(running[owner] == row_id)
        return Window(limit, max(now, connection.scalar(latest) or 0) + 1)
    start = limit.period_start(now)
    spent = select(func.sum(usage.cost)).where(
        usage.grain == tables.QUARTER, usage[owner] == row_id, usage.start >= start
    )
    reserved = select(func.sum(running.amount)).where(running[owner] == row_id, running.reserved_at >= start)
    if limit.model is not None:
        spent, reserved = spent.where(usage.model == limit.model), reserved.where(running.model == limit.model)
    return Window(limit, start, int(connection.scalar(spent) or 0), int(connection.scalar(reserved) or 0))

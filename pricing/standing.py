"""The rows that hold money: locked in one order, changed in memory, written back."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, Table, bindparam, func, select, update

from pricing import tables
from pricing.balance import Balance, Limit, LimitKind
from pricing.clock import day_name
from pricing.errors import InsufficientFunds, Scope
from pricing.money import PICODOLLARS_MAX, Picodollars
from storage.database import padded
from storage.statements import Link, PreparedChange, PreparedQuery


@dataclass(slots=True)
class Standing:
    """One locked row of `accounts` or `keys`. A request counts in the current period if `reserved_at` lies in it."""

    id: int
    limit: Limit
    period_start: int
    spent: int
    reserved: int
    spent_total: int

    def enter(self, now: int) -> None:
        """Move on to the period of `now`, never back."""
        start = self.limit.period_start(now)
        if start > self.period_start:
            self.period_start, self.spent, self.reserved = start, 0, 0

    def require(self, amount: Picodollars, scope: Scope) -> None:
        """Raise InsufficientFunds unless `amount` fits."""
        most = PICODOLLARS_MAX if self.limit.kind is LimitKind.NONE else self.limit.amount
        # The second bound is that of BIGINT, which a limit of none would run into at 9.2 million USD.
        left = min(most - self.spent, PICODOLLARS_MAX - self.spent_total) - self.reserved
        if amount > left:
            raise InsufficientFunds(amount, Picodollars(max(0, left)), scope)

    def release(self, amount: int, cost: int, reserved_at: int) -> None:
        """Turn a reservation into its cost. One from an earlier period was charged to that period's limit."""
        self.spent_total += cost
        if reserved_at >= self.period_start:
            self.reserved -= amount
            self.spent += cost

    def balance(self) -> Balance:
        """A copy that stays as it is."""
        return Balance(
            self.limit,
            self.period_start,
            Picodollars(self.spent),
            Picodollars(self.reserved),
            Picodollars(self.spent_total),
        )


def balance_of(row: Row[Any], now: int) -> Balance:
    """The balance in a row of `accounts` or `keys`, as of `now`."""
    return Balance(
        Limit(LimitKind(row.limit_kind), Picodollars(row.limit_amount)),
        row.period_start,
        Picodollars(row.spent),
        Picodollars(row.reserved),
        Picodollars(row.spent_total),
    ).at(now)


def fresh_columns(limit: Limit, now: int) -> dict[str, object]:
    """The columns of a row to which nothing has happened yet."""
    return {
        "limit_kind": limit.kind.value,
        "limit_amount": limit.amount,
        "period_start": limit.period_start(now),
        "spent": 0,
        "reserved": 0,
        "spent_total": 0,
    }


def lock(connection: Link, table: Table, ids: Iterable[int], *, skip_locked: bool = False) -> dict[int, Standing]:
    """Lock these rows in the order of their ids (SQLite has locked everything already) and read them.

    With `skip_locked` those that another process holds are left out, instead of waited for; see `held_by_others`.
    """
    ordered = sorted(set(ids))
    if not ordered:
        return {}
    statement = (_LOCK_FREE if skip_locked else _LOCK)[table]
    return {
        row.id: Standing(
            row.id,
            Limit(LimitKind(row.limit_kind), Picodollars(row.limit_amount)),
            row.period_start,
            row.spent,
            row.reserved,
            row.spent_total,
        )
        for row in statement.rows(connection, padded(ordered))
    }


def held_by_others(connection: Link, table: Table, ids: Iterable[int], locked: Container[int]) -> set[int]:
    """Those of these rows that a `lock` with `skip_locked` left out although they are there."""
    missing = sorted(row_id for row_id in set(ids) if row_id not in locked)
    return {row.id for row in _THERE[table].rows(connection, padded(missing))} if missing else set()


def write_back(connection: Link, table: Table, standings: Iterable[Standing]) -> None:
    """Store what changed in locked rows."""
    values = [
        {
            "row_id": standing.id,
            "period_start": standing.period_start,
            "spent": standing.spent,
            "reserved": standing.reserved,
            "spent_total": standing.spent_total,
        }
        for standing in standings
    ]
    if values:
        _WRITE_BACK[table].run(connection, values)


def _lock(table: Table, *, skip_locked: bool = False) -> Select[Any]:
    columns = table.c
    return (
        select(
            columns.id,
            columns.limit_kind,
            columns.limit_amount,
            columns.period_start,
            columns.spent,
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


def replace_limit(connection: Connection, table: Table, row_id: int, limit: Limit, now: int) -> Balance:
    """Give a row (locked here) another limit, and count what its new period has seen so far.

    The sums come from `usage_daily` and `reservations`, which nobody changes without this row's lock.
    """
    standing = (lock(connection, table, [row_id]))[row_id]
    if limit.kind is not standing.limit.kind:
        owner = "account_id" if table is tables.accounts else "key_id"
        open_ones, days = tables.reservations, tables.usage_daily
        start = limit.period_start(now)
        if limit.kind is LimitKind.PREPAID:
            # Credit counts from now: what ran or was spent before belongs to the limit before.
            latest = select(func.max(open_ones.c.reserved_at)).where(open_ones.c[owner] == row_id)
            standing.period_start = max(now, connection.scalar(latest) or 0) + 1
            standing.spent = standing.reserved = 0
        else:
            spent = select(func.sum(days.c.cost)).where(days.c[owner] == row_id, days.c.day >= day_name(start))
            reserved = select(func.sum(open_ones.c.amount)).where(
                open_ones.c[owner] == row_id, open_ones.c.reserved_at >= start
            )
            standing.period_start = start
            standing.spent = int(connection.scalar(spent) or 0)
            standing.reserved = int(connection.scalar(reserved) or 0)
    standing.limit = limit
    write_back(connection, table, [standing])
    connection.execute(
        update(table).where(table.c.id == row_id).values(limit_kind=limit.kind.value, limit_amount=limit.amount)
    )
    return standing.balance()

"""Limits and what is left of them: the arithmetic that both accounts and keys share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pricing.clock import day_start, month_start
from pricing.money import PICODOLLARS_MAX, InvalidAmount, Picodollars, format_usd

_NOTHING: Final = Picodollars(0)


class LimitKind(StrEnum):
    """How spending is bounded."""

    NONE = "none"  # not at all; spending is still counted
    PREPAID = "prepaid"  # by the credit that was added since the account became prepaid (accounts only)
    DAY = "day"  # per UTC day
    MONTH = "month"  # per UTC month
    TOTAL = "total"  # over the whole life


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on spending. `amount` is 0 for NONE, and the credit so far for PREPAID."""

    kind: LimitKind
    amount: Picodollars = _NOTHING

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= PICODOLLARS_MAX:
            raise InvalidAmount(
                f"A limit of {format_usd(self.amount)} USD can't be; it is from 0 to {format_usd(PICODOLLARS_MAX)} USD."
            )
        if self.kind is LimitKind.NONE and self.amount:
            raise InvalidAmount("A limit of kind 'none' has no amount; choose day, month, total or prepaid.")

    def period_start(self, at: int) -> int:
        """The first millisecond of the period that `at` lies in; 0 where there are no periods."""
        if self.kind is LimitKind.DAY:
            return day_start(at)
        if self.kind is LimitKind.MONTH:
            return month_start(at)
        return 0


NO_LIMIT = Limit(LimitKind.NONE)


@dataclass(frozen=True, slots=True)
class Balance:
    """Where an account or key stands. `spent` and `reserved` belong to the current period, which began at
    `period_start`; `spent_total` is everything ever spent. All amounts in picodollars."""

    limit: Limit
    period_start: int
    spent: Picodollars
    reserved: Picodollars
    spent_total: Picodollars

    @property
    def left(self) -> Picodollars | None:
        """What a new reservation may take, never negative; None without a limit."""
        if self.limit.kind is LimitKind.NONE:
            return None
        return Picodollars(max(0, self.limit.amount - self.spent - self.reserved))

    def at(self, now: int) -> Balance:
        """The same, moved on to the period of `now`. Periods never move back, so a late clock can't reopen one."""
        start = self.limit.period_start(now)
        if start <= self.period_start:
            return self
        return Balance(self.limit, start, Picodollars(0), Picodollars(0), self.spent_total)

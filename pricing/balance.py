"""Limits and what is left of them: the arithmetic that both accounts and keys share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from pricing.money import PICODOLLARS_MAX, InvalidAmount, Picodollars, format_usd
from pricing.periods import WEEKDAYS, Unit, Weekday, period, zones
from pricing.text import checked_name
from storage.errors import InvalidSetting
from storage.text import shorten

_NOTHING: Final = Picodollars(0)
UTC: Final = "UTC"
LIMITS_MAX: Final = 8
"""How many limits an account or a key may have, where the settings say nothing else."""
LIMITS_CAP: Final = 64
"""How many it may have, whatever the settings say."""


class LimitKind(StrEnum):
    """How spending is bounded."""

    NONE = "none"  # not at all; spending is still counted
    PREPAID = "prepaid"  # by the credit that was added since the account became prepaid (accounts only)
    HOUR = "hour"  # per hour, day, week and month of the limit's time zone
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"  # over the whole life


_UNITS: Final[dict[LimitKind, Unit]] = {
    LimitKind.HOUR: "hour",
    LimitKind.DAY: "day",
    LimitKind.WEEK: "week",
    LimitKind.MONTH: "month",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on spending. `amount` is 0 for NONE, and the credit so far for PREPAID.

    `zone` is an IANA time zone, by whose clocks periods begin; `week_start` the first day of a WEEK. `model` None
    bounds all models together. Raises InvalidAmount, InvalidSetting.
    """

    kind: LimitKind
    amount: Picodollars = _NOTHING
    zone: str = UTC
    week_start: Weekday = "monday"
    model: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= PICODOLLARS_MAX:
            raise InvalidAmount(
                f"A limit of {format_usd(self.amount)} USD can't be; it is from 0 to {format_usd(PICODOLLARS_MAX)} USD."
            )
        if self.kind is LimitKind.NONE and self.amount:
            raise InvalidAmount(
                "A limit of kind 'none' has no amount; choose hour, day, week, month, total or prepaid."
            )
        if self.zone != UTC and self.zone not in zones():
            raise InvalidSetting(
                f"The time zone {shorten(self.zone)} isn't known; give one of the IANA's names, such as Europe/Berlin."
            )
        if self.zone != UTC and self.kind not in _UNITS:
            raise InvalidSetting(f"A limit of kind {self.kind.value!r} has no periods, and so no time zone.")
        if self.week_start not in WEEKDAYS:
            raise InvalidSetting(
                f"A week can't begin on {shorten(self.week_start)}; give one of {', '.join(WEEKDAYS)}."
            )
        if self.week_start != "monday" and self.kind is not LimitKind.WEEK:
            raise InvalidSetting(f"A limit of kind {self.kind.value!r} has no first day of the week.")
        if self.model is not None:
            checked_name("name of a model", self.model, 256)
            if self.kind in (LimitKind.NONE, LimitKind.PREPAID):
                raise InvalidSetting(f"A limit of kind {self.kind.value!r} can't be for one model.")

    @property
    def identity(self) -> tuple[object, ...]:
        """What it bounds, whatever the amount: of each there is at most one."""
        return self.kind, self.zone, self.week_start, self.model

    def applies(self, model: str) -> bool:
        """Whether requests to this model count."""
        return self.model is None or self.model == model

    def period(self, at: int) -> tuple[int, int | None]:
        """The first millisecond of the period that `at` lies in, and that of the next; 0 and None without periods."""
        unit = _UNITS.get(self.kind)
        return (0, None) if unit is None else period(unit, self.zone, self.week_start, at)

    def period_start(self, at: int) -> int:
        """The first millisecond of the period that `at` lies in; 0 where there are no periods."""
        return self.period(at)[0]


NO_LIMIT: Final = Limit(LimitKind.NONE)


def checked_limits(limits: Iterable[Limit], *, prepaid: bool, most: int = LIMITS_CAP) -> tuple[Limit, ...]:
    """The limits of one account (which may be prepaid) or key, without those of kind NONE. Raises InvalidSetting."""
    found = tuple(limit for limit in limits if limit.kind is not LimitKind.NONE)
    if not prepaid and any(limit.kind is LimitKind.PREPAID for limit in found):
        raise InvalidSetting(
            "Only accounts can be prepaid; give the key a limit of kind hour, day, week, month or total."
        )
    seen: set[tuple[object, ...]] = set()
    for limit in found:
        if limit.identity in seen:
            raise InvalidSetting(f"There are two limits of {limit_text(limit, amount=False)}; give the lower one only.")
        seen.add(limit.identity)
    if len(found) > most:
        raise InvalidSetting(f"An account or a key has at most {most} limits; these are {len(found)}.")
    return found


def limit_text(limit: Limit, *, amount: bool = True) -> str:
    """A limit in a few words: "5.00 per day (Europe/Berlin) for demo", "none"."""
    if limit.kind is LimitKind.NONE:
        return limit.kind.value
    words = [format_usd(limit.amount)] if amount else []
    if limit.kind in _UNITS:
        words.append(f"per {limit.kind.value}" if amount else f"the kind {limit.kind.value}")
        if limit.week_start != "monday":
            words.append(f"from {limit.week_start}")
        if limit.zone != UTC:
            words.append(f"({limit.zone})")
    else:
        words.append("prepaid" if limit.kind is LimitKind.PREPAID else "in all")
    if limit.model is not None:
        words.append(f"for {limit.model}")
    return " ".join(words)


def limits_text(limits: Sequence[Limit]) -> str:
    """Several in a few words; "none" where there are none."""
    return ", ".join(map(limit_text, limits)) or NO_LIMIT.kind.value


def limits_json(limits: Sequence[Limit]) -> str:
    """As the database keeps them: a JSON list, without what is usual."""
    rows: list[dict[str, object]] = []
    for limit in limits:
        row: dict[str, object] = {"kind": limit.kind.value, "amount": limit.amount}
        for name in ("zone", "week_start", "model"):
            value = getattr(limit, name)
            if value != getattr(NO_LIMIT, name):
                row[name] = value
        rows.append(row)
    return json.dumps(rows)


@lru_cache(maxsize=8192)
def limits_of(text: str) -> tuple[Limit, ...]:
    """Limits as the database keeps them."""
    return tuple(_limit(row) for row in json.loads(text))


def _limit(row: dict[str, Any]) -> Limit:
    return Limit(LimitKind(row.pop("kind")), Picodollars(row.pop("amount")), **row)


@dataclass(frozen=True, slots=True)
class LimitBalance:
    """Where one limit stands, in the period that began at `period_start` and ends before `period_end` (None: never).
    Amounts in picodollars."""

    limit: Limit
    period_start: int
    period_end: int | None
    spent: Picodollars
    reserved: Picodollars

    @property
    def left(self) -> Picodollars:
        """What a new reservation may take, never negative."""
        return Picodollars(max(0, self.limit.amount - self.spent - self.reserved))

    @property
    def percent(self) -> int:
        """How much of it is spent or reserved, rounded down."""
        return percent_of(self.spent + self.reserved, self.limit.amount)

    def at(self, now: int) -> LimitBalance:
        """The same, moved on to the period of `now`. Periods never move back, so a late clock can't reopen one."""
        start, end = self.limit.period(now)
        if start <= self.period_start:
            return self
        return LimitBalance(self.limit, start, end, _NOTHING, _NOTHING)


@dataclass(frozen=True, slots=True)
class Balance:
    """Where an account or key stands: each of its limits, and what was ever spent and is reserved now, in picodollars.

    `limit`, `period_start`, `spent` and `reserved` are those of the only limit. Where there is none, or several, they
    are of all time.
    """

    limits: tuple[LimitBalance, ...]
    spent_total: Picodollars
    reserved_total: Picodollars

    @property
    def _only(self) -> LimitBalance | None:
        return self.limits[0] if len(self.limits) == 1 else None

    @property
    def limit(self) -> Limit:
        return self._only.limit if self._only else NO_LIMIT

    @property
    def period_start(self) -> int:
        return self._only.period_start if self._only else 0

    @property
    def spent(self) -> Picodollars:
        return self._only.spent if self._only else self.spent_total

    @property
    def reserved(self) -> Picodollars:
        return self._only.reserved if self._only else self.reserved_total

    @property
    def left(self) -> Picodollars | None:
        """What a new reservation for any model may take, never negative; None where no limit is for all models."""
        return min((one.left for one in self.limits if one.limit.model is None), default=None)

    @property
    def percent(self) -> int:
        """How much of the fullest limit is spent or reserved, rounded down; 0 without limits."""
        return max((one.percent for one in self.limits), default=0)

    def at(self, now: int) -> Balance:
        """The same, each limit moved on to the period of `now`."""
        return Balance(tuple(one.at(now) for one in self.limits), self.spent_total, self.reserved_total)


def percent_of(taken: int, amount: int) -> int:
    """Rounded down, and at most 100. All of nothing is taken."""
    return min(100, taken * 100 // amount) if amount else 100

"""When a limit's periods begin and end: hours, days, weeks and months of a time zone.

A period begins at the first instant at which the zone's clocks show its first minute. So where clocks skip midnight the
day begins when they have skipped it, where they show it twice at the first time; a day may have 23 or 25 hours, and
periods follow each other without a gap or an overlap, which the ledger relies on. Every zone of today is a whole number
of quarters of an hour away from UTC, and so is every beginning.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo, available_timezones

from pricing.clock import MS_PER_SECOND

Unit = Literal["hour", "day", "week", "month"]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

WEEKDAYS: Final[tuple[Weekday, ...]] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MS_PER_QUARTER: Final = 900_000
_MS_PER_HOUR: Final = 3_600_000
_LAST: Final = 253_370_764_800_000  # the year 9999, behind which no date has a successor


def quarter_start(at: int) -> int:
    """The first millisecond of the quarter of an hour that `at` lies in."""
    return at - at % MS_PER_QUARTER


@lru_cache(maxsize=1)
def zones() -> frozenset[str]:
    """The names of all time zones, such as "Europe/Berlin"."""
    return frozenset(available_timezones())


def period(unit: Unit, zone: str, week_start: Weekday, at: int) -> tuple[int, int]:
    """The first millisecond of the period that `at` lies in, and that of the next one, since 1970 UTC."""
    return _period(unit, zone, week_start, quarter_start(min(at, _LAST)))


@lru_cache(maxsize=4096)  # a request asks several times, all of them the same quarter
def _period(unit: Unit, zone: str, week_start: Weekday, at: int) -> tuple[int, int]:
    where = ZoneInfo(zone)
    if unit == "hour":
        # By the zone's standard time on one day: a change of 30 minutes (Lord Howe) must not cut an hour in two.
        shift = _standard_offset(where) % _MS_PER_HOUR
        start = at - (at + shift) % _MS_PER_HOUR
        return start, start + _MS_PER_HOUR
    first = _first_day(unit, week_start, datetime.fromtimestamp(at // MS_PER_SECOND, where).date())
    start, end = _midnight(first, where), _midnight(following := _next(unit, first), where)
    if at >= end:  # clocks were put back over midnight: that day has begun, and goes on
        return end, _midnight(_next(unit, following), where)
    return start, end


def _standard_offset(where: ZoneInfo) -> int:
    moment = datetime(2026, 1, 1, tzinfo=where)
    offset = (moment.utcoffset() or timedelta()) - (moment.dst() or timedelta())
    return int(offset.total_seconds()) * MS_PER_SECOND


def _first_day(unit: Unit, week_start: Weekday, day: date) -> date:
    if unit == "month":
        return day.replace(day=1)
    return day - timedelta(days=(day.weekday() - WEEKDAYS.index(week_start)) % 7) if unit == "week" else day


def _next(unit: Unit, first: date) -> date:
    if unit == "month":
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if unit == "week" else 1)


def _midnight(day: date, where: ZoneInfo) -> int:
    """`fold` 0 is the first of two midnights, and where there is none the instant that clocks jump over it."""
    moment = datetime(day.year, day.month, day.day, tzinfo=where).astimezone(UTC)
    return int(moment.timestamp()) * MS_PER_SECOND

"""Time as integer milliseconds since 1970-01-01 UTC.

Integers, and not timezone-aware datetimes: SQLite has no such type, PostgreSQL's would be converted by each driver in
its own way, and a BIGINT is exact, sorts, and can be a partition bound in both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final

Clock = Callable[[], int]
"""Gives milliseconds since 1970 in UTC. Tests pass their own."""

MS_PER_SECOND: Final = 1_000
MS_PER_DAY: Final = 86_400_000


def system_clock() -> int:
    """Now, in milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def monotonic() -> int:
    """Milliseconds that never jump, for measuring leases; unrelated to the time of day."""
    return time.monotonic_ns() // 1_000_000


def day_start(at: int) -> int:
    """The first millisecond of the UTC day of `at`."""
    return at - at % MS_PER_DAY


def month_start(at: int) -> int:
    """The first millisecond of the UTC month of `at`."""
    return _month_start(day_start(at))


@lru_cache  # a request asks several times, all of them the same day
def _month_start(day: int) -> int:
    moment = _moment(day)
    return _milliseconds(datetime(moment.year, moment.month, 1, tzinfo=UTC))


def next_month_start(at: int) -> int:
    """The first millisecond of the UTC month after that of `at`."""
    return month_start(month_start(at) + 32 * MS_PER_DAY)


def day_name(at: int) -> str:
    """The UTC day of `at` as "2026-11-20", which sorts."""
    return _day_name(day_start(at))


@lru_cache
def _day_name(day: int) -> str:
    return _moment(day).date().isoformat()


def iso_time(at: int) -> str:
    """`at` as "2026-11-20T12:34:56.789Z"."""
    return _moment(at).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % MS_PER_SECOND:03d}Z"


def start_of(day: date) -> int:
    """The first millisecond of a UTC day."""
    return _milliseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _moment(at: int) -> datetime:
    return datetime.fromtimestamp(at // MS_PER_SECOND, UTC)


def _milliseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)).days * MS_PER_DAY

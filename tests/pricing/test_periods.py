"""When periods begin: clocks that jump over midnight or show it twice, leap days, odd offsets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.periods import MS_PER_QUARTER, WEEKDAYS, Unit, Weekday, period, zones


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def text(moment: int | None) -> str:
    return "" if moment is None else datetime.fromtimestamp(moment / 1000, UTC).strftime("%Y-%m-%dT%H:%M")


@pytest.mark.parametrize(
    ("unit", "zone", "moment", "start", "end"),
    [
        ("day", "UTC", "2026-11-20T12:00Z", "2026-11-20T00:00", "2026-11-21T00:00"),
        ("month", "UTC", "2028-02-29T23:59Z", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00Z", "2026-10-24T22:00", "2026-10-25T23:00"),  # 25 hours
        ("day", "Europe/Berlin", "2027-03-28T12:00Z", "2027-03-27T23:00", "2027-03-28T22:00"),  # 23 hours
        ("month", "Europe/Berlin", "2026-11-01T00:00Z", "2026-10-31T23:00", "2026-11-30T23:00"),
        ("day", "America/Havana", "2026-11-01T05:30Z", "2026-11-01T04:00", "2026-11-02T05:00"),  # midnight comes twice
        ("day", "Africa/Cairo", "2026-04-24T00:00Z", "2026-04-23T22:00", "2026-04-24T21:00"),  # and here not at all
        ("day", "Asia/Kathmandu", "2026-11-20T18:20Z", "2026-11-20T18:15", "2026-11-21T18:15"),
        ("hour", "Asia/Kolkata", "2026-11-20T12:45Z", "2026-11-20T12:30", "2026-11-20T13:30"),
        ("hour", "Australia/Lord_Howe", "2026-12-20T12:45Z", "2026-12-20T12:30", "2026-12-20T13:30"),
        ("week", "UTC", "2026-11-20T12:00Z", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("day", "Pacific/Apia", "2011-12-31T12:00Z", "2011-12-31T10:00", "2012-01-01T10:00"),  # after a day that wasn't
    ],
)
def test_a_period_begins_when_the_clocks_of_its_zone_say_so(
    unit: Unit, zone: str, moment: str, start: str, end: str
) -> None:
    found = period(unit, zone, "monday", at(moment))
    assert (text(found[0]), text(found[1])) == (start, end)


def test_a_week_begins_on_its_first_day() -> None:
    starts = [text(period("week", "UTC", day, at("2026-11-20T12:00Z"))[0])[:10] for day in WEEKDAYS]  # a Friday
    assert starts == [f"2026-11-{day}" for day in (16, 17, 18, 19, 20, 14, 15)]


@given(
    st.sampled_from(get_args(Unit)),
    st.sampled_from(sorted(zones())),
    st.sampled_from(WEEKDAYS),
    st.integers(at("2026-01-01T00:00Z"), at("2037-12-01T00:00Z")),
)
def test_periods_follow_each_other_without_a_gap_or_an_overlap(
    unit: Unit, zone: str, week_start: Weekday, moment: int
) -> None:
    start, end = period(unit, zone, week_start, moment)
    assert start <= moment < end
    assert start % MS_PER_QUARTER == end % MS_PER_QUARTER == 0
    assert period(unit, zone, week_start, start) == period(unit, zone, week_start, end - 1) == (start, end)
    assert period(unit, zone, week_start, end)[0] == end

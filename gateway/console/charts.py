"""Charts as numbers: the templates draw them as SVG, which needs no script and no library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

WIDTH = 720
HEIGHT = 150
GAP = 0.25  # of a bar's place


@dataclass(frozen=True, slots=True)
class Bar:
    """One day's. Places and sizes are in the drawing's own units."""

    label: str
    value: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class DayChart:
    """A bar for each day, the days without anything among them."""

    bars: tuple[Bar, ...]
    top: int
    width: int = WIDTH
    height: int = HEIGHT


def by_day(values: Mapping[str, int], since: date, until: date) -> DayChart:
    """`values` by day, as "2026-11-20"; both ends are inclusive."""
    days = [(since + timedelta(days=number)).isoformat() for number in range((until - since).days + 1)]
    top = max([values.get(day, 0) for day in days], default=0)
    place = WIDTH / max(len(days), 1)
    bars = []
    for number, day in enumerate(days):
        value = values.get(day, 0)
        height = HEIGHT * value / top if top else 0.0
        if value:
            height = max(height, 1.5)  # so that little can be told from nothing
        bars.append(
            Bar(
                day,
                value,
                round(number * place + place * GAP / 2, 2),
                round(HEIGHT - height, 2),
                round(place * (1 - GAP), 2),
                round(height, 2),
            )
        )
    return DayChart(tuple(bars), top)


def shares(values: Sequence[int]) -> list[float]:
    """Each as a part of the largest, from 0 to 100."""
    top = max(values, default=0)
    return [round(100 * value / top, 2) if top else 0.0 for value in values]


def share(part: int, whole: int) -> float:
    """From 0 to 100."""
    return round(min(100.0, 100 * part / whole), 2) if whole else 100.0

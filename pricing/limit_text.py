"""Limits as people write them: `day=5.00,tz=Europe/Berlin,model=acme/llama`."""

from __future__ import annotations

from typing import Final

from pricing.balance import UTC, Limit, LimitKind
from pricing.money import format_usd, parse_usd
from pricing.periods import WEEKDAYS, Weekday
from storage.errors import InvalidSetting
from storage.text import shorten

KINDS: Final = [kind.value for kind in LimitKind if kind is not LimitKind.NONE]


def parse_limit(text: str, what: str) -> Limit:
    """The limit; `what` names the field or flag in messages. Raises InvalidSetting, InvalidAmount."""
    parts = [part.partition("=") for part in text.split(",")]
    (kind, _, amount), rest = parts[0], {name: value for name, _, value in parts[1:]}
    unknown = rest.keys() - {"tz", "week", "model"}
    if kind not in KINDS or unknown or len(rest) < len(parts) - 1:
        raise InvalidSetting(
            f"{what} is {shorten(text)}; it begins with one of {', '.join(KINDS)}, an = and US dollars, and goes on, "
            "after commas, with any of tz=, week= and model=, once each."
        )
    week = rest.get("week", WEEKDAYS[0])
    return Limit(LimitKind(kind), parse_usd(amount), rest.get("tz", UTC), _weekday(week), rest.get("model"))


def write_limit(limit: Limit) -> str:
    """What `parse_limit` reads."""
    parts = [f"{limit.kind.value}={format_usd(limit.amount)}"]
    parts += [f"tz={limit.zone}"] if limit.zone != UTC else []
    parts += [f"week={limit.week_start}"] if limit.kind is LimitKind.WEEK and limit.week_start != WEEKDAYS[0] else []
    parts += [f"model={limit.model}"] if limit.model is not None else []
    return ",".join(parts)


def _weekday(text: str) -> Weekday:
    for day in WEEKDAYS:
        if day == text:
            return day
    raise InvalidSetting(f"week= is {shorten(text)}; it is one of {', '.join(WEEKDAYS)}.")

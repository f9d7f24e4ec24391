"""Limits on a command line: `--limit 25 --per month`, or `--limit day=5,tz=Europe/Berlin` for each of several."""

import argparse

from gateway.commands.settings_flags import add_settings, settings_of
from pricing.balance import UTC, Limit, LimitKind, checked_limits, limits_text
from pricing.money import parse_usd
from pricing.periods import WEEKDAYS, Weekday
from storage.errors import InvalidSetting
from storage.text import shorten

KINDS = [kind.value for kind in LimitKind if kind not in (LimitKind.NONE, LimitKind.PREPAID)]

__all__ = ["add_limit_flags", "limits_given", "limits_text"]


def add_limit_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit",
        metavar="USD|KIND=USD[,...]",
        action="append",
        default=[],
        help=f"the most it may spend, in US dollars. KIND is one of {', '.join(KINDS)}; after it may come tz=ZONE "
        "(such as Europe/Berlin), week=DAY (its first) and model=NAME. Repeat it for several limits, which all "
        "hold. Default: no limit.",
    )
    parser.add_argument("--per", choices=KINDS, help="the kind of a --limit that is only an amount. Default: total.")
    add_settings(parser, ["limits_max"])


def limits_given(options: argparse.Namespace, *, prepaid: str | None = None) -> tuple[Limit, ...]:
    """Raises InvalidSetting, InvalidAmount."""
    plain = [text for text in options.limit if "=" not in text]
    if options.per is not None and not plain:
        raise InvalidSetting("--per needs --limit; give the amount in US dollars.")
    limits = [
        Limit(LimitKind(options.per or "total"), parse_usd(text)) if "=" not in text else _parsed(text)
        for text in options.limit
    ]
    if prepaid is not None:
        limits.insert(0, Limit(LimitKind.PREPAID, parse_usd(prepaid)))
    return checked_limits(limits, prepaid=True, most=settings_of(options).limits_max)


def _parsed(text: str) -> Limit:
    parts = [part.partition("=") for part in text.split(",")]
    (kind, _, amount), rest = parts[0], {name: value for name, _, value in parts[1:]}
    unknown = rest.keys() - {"tz", "week", "model"}
    if kind not in KINDS or unknown or len(rest) < len(parts) - 1:
        raise InvalidSetting(
            f"--limit is {shorten(text)}; it begins with one of {', '.join(KINDS)}, an = and US dollars, and goes on, "
            "after commas, with any of tz=, week= and model=, once each."
        )
    return Limit(
        LimitKind(kind),
        parse_usd(amount),
        rest.get("tz", UTC),
        _weekday(rest.get("week", WEEKDAYS[0])),
        rest.get("model"),
    )


def _weekday(text: str) -> Weekday:
    for day in WEEKDAYS:
        if day == text:
            return day
    raise InvalidSetting(f"week= is {shorten(text)}; it is one of {', '.join(WEEKDAYS)}.")

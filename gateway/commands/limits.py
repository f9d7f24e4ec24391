"""Limits on a command line: `--limit 25 --per month`, or `--limit day=5,tz=Europe/Berlin` for each of several."""

import argparse

from gateway.commands.settings_flags import add_settings, settings_of
from pricing.balance import Limit, LimitKind, checked_limits, limits_text
from pricing.limit_text import parse_limit
from pricing.money import parse_usd
from storage.errors import InvalidSetting

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
        Limit(LimitKind(options.per or "total"), parse_usd(text)) if "=" not in text else parse_limit(text, "--limit")
        for text in options.limit
    ]
    if prepaid is not None:
        limits.insert(0, Limit(LimitKind.PREPAID, parse_usd(prepaid)))
    return checked_limits(limits, prepaid=True, most=settings_of(options).limits_max)

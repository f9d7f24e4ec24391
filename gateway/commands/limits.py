"""Limits on a command line: `--limit 25 --per month`."""

import argparse

from pricing.balance import NO_LIMIT, Limit, LimitKind
from pricing.money import format_usd, parse_usd
from storage.errors import InvalidSetting


def add_limit_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", metavar="USD", help="the most it may spend, in US dollars. Default: no limit.")
    parser.add_argument("--per", choices=("day", "month", "total"), help="the limit's period, in UTC. Default: total.")


def limit_of(options: argparse.Namespace) -> Limit:
    """Raises InvalidSetting, InvalidAmount."""
    if options.limit is None:
        if options.per is not None:
            raise InvalidSetting("--per needs --limit; give the amount in US dollars.")
        return NO_LIMIT
    return Limit(LimitKind(options.per or "total"), parse_usd(options.limit))


def limit_text(limit: Limit) -> str:
    """`25 per month`, `none`."""
    match limit.kind:
        case LimitKind.NONE:
            return "none"
        case LimitKind.PREPAID:
            return f"{format_usd(limit.amount)} prepaid"
        case LimitKind.TOTAL:
            return f"{format_usd(limit.amount)} in all"
        case _:
            return f"{format_usd(limit.amount)} per {limit.kind}"

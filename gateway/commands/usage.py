"""`farebox usage`: what was spent, by key and model; `farebox usage export`: every entry."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import BinaryIO

from gateway.commands.common import add_database_flags, open_database, show_rows
from gateway.settings import SettingsError
from pricing.accounts import Accounts
from pricing.export import export_csv, export_parquet
from pricing.keys import Keys
from pricing.money import format_usd
from pricing.usage import DIMENSIONS, Usage, UsageTotal
from storage.errors import InvalidSetting


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("usage", help="what was spent", description="What was spent, in US dollars.")
    add_database_flags(parser)
    parser.add_argument(
        "--by",
        default="key,model",
        help="what to sum by: day, hour, account, key, model, user (of the requests), separated by "
        "commas; '' for one total. Default: key,model.",
    )
    parser.add_argument("--since", type=date.fromisoformat, metavar="YYYY-MM-DD", help="from this UTC day")
    parser.add_argument("--until", type=date.fromisoformat, metavar="YYYY-MM-DD", help="up to this UTC day")
    parser.set_defaults(run=lambda options: asyncio.run(_totals(options)))
    actions = parser.add_subparsers(metavar="ACTION")
    export = actions.add_parser("export", help="write every ledger entry as CSV or Parquet")
    add_database_flags(export)
    export.add_argument("--format", choices=("csv", "parquet"), default="csv")
    export.add_argument("--output", metavar="FILE", help="the file to write; CSV goes to the terminal without it")
    export.set_defaults(run=lambda options: asyncio.run(_export(options)))


async def _totals(options: argparse.Namespace) -> int:
    by = [name for name in options.by.split(",") if name]
    for name in by:
        if name not in DIMENSIONS:
            print(f"farebox: --by can't be {name!r}; it is any of {', '.join(DIMENSIONS)}.", file=sys.stderr)
            return 2
    if options.since is not None and options.until is not None and options.since > options.until:
        raise InvalidSetting(f"--until ({options.until}) is before --since ({options.since}).")
    async with open_database(options) as database:
        totals = await Usage(database).totals(by, since=options.since, until=options.until)
        keys = {key.id: f"{key.name} ({key.prefix})" for key in await Keys(database).list(include_revoked=True)}
        accounts = {account.id: account.name for account in await Accounts(database).list()}
    rows = [_row(total, by, keys, accounts) for total in totals]
    show_rows(rows, options.json, "Nothing was spent yet.")
    return 0


def _row(total: UsageTotal, by: list[str], keys: dict[int, str], accounts: dict[int, str]) -> dict[str, object]:
    labels: dict[str, object] = {
        "day": total.day,
        "hour": total.hour,
        "account": accounts.get(total.account_id or 0, total.account_id),
        "key": keys.get(total.key_id or 0, total.key_id),
        "model": total.model,
        "user": total.user,
    }
    return {name: labels[name] for name in by} | {
        "requests": total.requests,
        "prompt_tokens": total.tokens.prompt,
        "cached_tokens": total.tokens.cached,
        "completion_tokens": total.tokens.completion,
        "cost_usd": format_usd(total.cost),
    }


async def _export(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        if options.format == "parquet":
            if options.output is None:
                print("farebox: Parquet is not for a terminal; name a file with --output.", file=sys.stderr)
                return 2
            with _output(options.output) as target:
                rows = await export_parquet(database, target)
            print(f"{rows} entries written to {options.output}.", file=sys.stderr)
            return 0
        if options.output is None:
            async for chunk in export_csv(database):
                sys.stdout.buffer.write(chunk)
            return 0
        with _output(options.output) as target:
            async for chunk in export_csv(database):
                target.write(chunk)
    print(f"Entries written to {options.output}.", file=sys.stderr)
    return 0


@contextmanager
def _output(name: str) -> Iterator[BinaryIO]:
    """The file to write. Raises SettingsError where it can't be, or has no room for all of it."""
    try:
        with open(name, "wb") as target:  # noqa: PTH123 - a path as it was typed
            yield target
    except OSError as error:
        raise SettingsError(
            f"--output {name} can't be written: {error.strerror or error}; it doesn't hold all."
        ) from None

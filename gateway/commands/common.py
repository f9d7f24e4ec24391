"""What the commands share: the database, tables for people, JSON for programs."""

import argparse
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from gateway.commands.settings_flags import add_settings, settings_of
from gateway.process.ledger_database import ledger_database
from storage.database import Database

Row = Mapping[str, object]


def add_database_flags(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ["data_dir"])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


@asynccontextmanager
async def open_database(options: argparse.Namespace) -> AsyncIterator[Database]:
    """The database of the settings, its schema up to date. Raises SettingsError and LedgerError."""
    async with ledger_database(settings_of(options)) as database:
        yield database


def show_rows(rows: Sequence[Row], as_json: bool, nothing: str) -> None:
    """A table with right-aligned numbers, or JSON; `nothing` is what to say when there are no rows."""
    if as_json:
        print(json.dumps(list(rows), indent=2, ensure_ascii=False))
    elif not rows:
        print(nothing)
    else:
        print("\n".join(_table(rows)))


def _table(rows: Sequence[Row]) -> Iterable[str]:
    names = list(rows[0])
    cells = [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    right = [all(isinstance(row[name], int) or _is_number(_cell(row[name])) for row in rows) for name in names]
    yield "  ".join(_pad(name, width, r) for name, width, r in zip(names, widths, right, strict=True)).rstrip()
    for line in cells:
        yield "  ".join(_pad(cell, width, r) for cell, width, r in zip(line, widths, right, strict=True)).rstrip()


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:,}" if type(value) is int else str(value)


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(".", "").replace(",", "").lstrip("-").isdecimal()


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def iso_time(milliseconds: int | None) -> str | None:
    """`2026-11-20T17:03:05Z`."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

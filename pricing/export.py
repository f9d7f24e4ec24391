"""The ledger's entries as CSV or Parquet, streamed in pages, in the order of settling.

Columns, the same in both: times in milliseconds since 1970 UTC and, in CSV, one as text; amounts in picodollars; prices
in picodollars per token; and the cost once more in USD, as text, exact.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from sqlalchemy import select, tuple_

from pricing import tables
from pricing.clock import iso_time
from pricing.errors import MissingPackage
from pricing.money import Picodollars, format_usd
from pricing.text import harmless
from storage.database import Database

_TEXTS: Final = ("request_id", "model", "route", "end_user", "state", "outcome", "reason", "tier")
_NUMBERS: Final = (
    "account_id",
    "key_id",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "price_input",
    "price_output",
    "price_cached_input",
    "amount",
    "cost",
    "started_at",
    "reserved_at",
    "settled_at",
)
COLUMNS: Final = (*_TEXTS, *_NUMBERS, "cost_usd", "settled_time")


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """Which entries: settled from `since` (inclusive) to `until` (exclusive), in milliseconds since 1970 UTC.

    `page` is how many are read at a time.
    """

    since: int = 0
    until: int | None = None
    account_id: int | None = None
    key_id: int | None = None
    page: int = 5_000


EVERYTHING: Final = ExportFilter()


async def export_csv(database: Database, which: ExportFilter = EVERYTHING) -> AsyncIterator[bytes]:
    """CSV (RFC 4180) in UTF-8 with a header line, in chunks of some thousand rows.

    A text that a spreadsheet would run as a formula is preceded by an apostrophe (OWASP, "CSV Injection"): `end_user`
    comes from clients.
    """
    yield _csv([COLUMNS])
    async for page in _pages(database, which):
        yield _csv([[harmless(row[name]) for name in COLUMNS] for row in page])


async def export_parquet(database: Database, target: BinaryIO, which: ExportFilter = EVERYTHING) -> int:
    """Write Parquet to `target`, a row group for each page; give the number of rows.

    Raises MissingPackage without pyarrow.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingPackage("Parquet needs pyarrow: install farebox[parquet], or export CSV.") from None
    texts = (*_TEXTS, "cost_usd", "settled_time")
    schema = pa.schema([(name, pa.string() if name in texts else pa.int64()) for name in COLUMNS])
    count = 0
    with pq.ParquetWriter(target, schema) as writer:
        async for page in _pages(database, which):
            writer.write_table(pa.Table.from_pylist(page, schema=schema))
            count += len(page)
    return count


async def _pages(database: Database, which: ExportFilter) -> AsyncIterator[list[dict[str, Any]]]:
    """Pages by key and each in its own short transaction: a long one would keep SQLite's log from shrinking and
    PostgreSQL from cleaning up."""
    columns = tables.entries.c
    wanted = [columns.settled_at >= which.since]
    if which.until is not None:
        wanted.append(columns.settled_at < which.until)
    if which.account_id is not None:
        wanted.append(columns.account_id == which.account_id)
    if which.key_id is not None:
        wanted.append(columns.key_id == which.key_id)
    place = tuple_(columns.settled_at, columns.request_id)
    query = (
        select(*(columns[name] for name in (*_TEXTS, *_NUMBERS)))
        .where(*wanted)
        .order_by(columns.settled_at, columns.request_id)
        .limit(which.page)
    )
    after: tuple[int, str] | None = None
    while True:
        async with database.read() as connection:
            rows = (await connection.execute(query if after is None else query.where(place > after))).all()
        if not rows:
            return
        after = (rows[-1].settled_at, rows[-1].request_id)
        yield [
            {
                **row._mapping,
                "cost_usd": format_usd(Picodollars(row.cost)),
                "settled_time": iso_time(row.settled_at),
            }
            for row in rows
        ]


def _csv(rows: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8")

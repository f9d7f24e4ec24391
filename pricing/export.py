"""The ledger's entries as CSV or Parquet, streamed in pages, in the order of settling."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO

from pricing.database import Database


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """Which entries: settled from `since` (inclusive) to `until` (exclusive), in milliseconds since 1970 UTC."""

    since: int = 0
    until: int | None = None
    account_id: int | None = None
    key_id: int | None = None


def export_csv(database: Database, which: ExportFilter = ExportFilter()) -> AsyncIterator[bytes]:
    """CSV in UTF-8 with a header line, in chunks of some thousand rows."""
    raise NotImplementedError


async def export_parquet(database: Database, target: BinaryIO, which: ExportFilter = ExportFilter()) -> int:
    """Write Parquet to `target`; give the number of rows. Raises MissingPackage without pyarrow."""
    raise NotImplementedError

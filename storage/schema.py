"""What the tables of all packages share: one schema, one history of migrations, one row about itself."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table

metadata: Final = MetaData()

# SQLite numbers rows by itself only in a column declared exactly INTEGER.
Id = BigInteger().with_variant(Integer(), "sqlite")

# One row. `directory_version` counts changes of accounts and keys; whoever changes one holds this row's lock until it
# commits, so that versions become visible in their order and a reader of "all after N" misses none.
meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("directory_version", BigInteger, nullable=False),
    Column("compatible_from", String(32), nullable=False),
)

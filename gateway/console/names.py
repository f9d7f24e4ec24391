"""What ids are called, for pages that show several."""

from collections.abc import Iterable

from sqlalchemy import Table, select

from pricing import tables
from storage.database import Database, padded


async def account_names(database: Database, ids: Iterable[int | None]) -> dict[int, str]:
    return await _names(database, tables.accounts, ids)


async def key_names(database: Database, ids: Iterable[int | None]) -> dict[int, str]:
    return await _names(database, tables.keys, ids)


async def _names(database: Database, table: Table, ids: Iterable[int | None]) -> dict[int, str]:
    wanted = sorted({one for one in ids if one is not None})
    if not wanted:
        return {}
    query = select(table.c.id, table.c.name).where(table.c.id.in_(padded(wanted)))
    async with database.read() as connection:
        return {row.id: row.name for row in await connection.execute(query)}

"""Who changed what, and when."""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pricing import tables
from pricing.text import checked_name
from storage.database import Database
from storage.schema import meta

Change = tuple[object, object]
"""A value before and after."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One change. `detail` is JSON text: {"field": {"from": ..., "to": ...}}. No secrets."""

    id: int
    at: int
    actor: str
    action: str
    account_id: int | None
    key_id: int | None
    detail: str


class AuditLog:
    """Reads the audit log; it is written by `Accounts` and `Keys` alone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self,
        *,
        account_id: int | None = None,
        key_id: int | None = None,
        before: int | None = None,
        count_max: int = 100,
    ) -> builtins.list[AuditRecord]:
        """The latest changes first; `before` is the id of the last one seen."""
        table = tables.audit
        query = select(table).order_by(table.c.id.desc()).limit(count_max)
        if account_id is not None:
            query = query.where(table.c.account_id == account_id)
        if key_id is not None:
            query = query.where(table.c.key_id == key_id)
        if before is not None:
            query = query.where(table.c.id < before)
        async with self._database.read() as connection:
            return [AuditRecord(*row) for row in await connection.execute(query)]


async def record_change(
    connection: AsyncConnection,
    *,
    at: int,
    actor: str,
    action: str,
    account_id: int | None,
    key_id: int | None = None,
    changes: Mapping[str, Change] | None = None,
) -> None:
    """Write one audit row in the caller's transaction, with the fields that differ."""
    detail = {
        field: {"from": before, "to": after} for field, (before, after) in (changes or {}).items() if before != after
    }
    await connection.execute(
        insert(tables.audit).values(
            at=at,
            actor=checked_name("actor", actor),
            action=action,
            account_id=account_id,
            key_id=key_id,
            detail=json.dumps(detail),
        )
    )


@asynccontextmanager
async def change(database: Database) -> AsyncIterator[tuple[AsyncConnection, int]]:
    """A transaction that changes accounts or keys, and the directory version to mark changed keys with.

    Such transactions run one after the other on all replicas (see `meta`), so that a look before a change, such
    as whether a name is free, stays true until the commit.
    """
    bump = update(meta).values(directory_version=meta.c.directory_version + 1).returning(meta.c.directory_version)
    async with database.write() as connection:
        yield connection, (await connection.execute(bump)).scalar_one()

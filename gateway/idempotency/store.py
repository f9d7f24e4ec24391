"""Answers that can be given again: at most one run for each idempotency key of an API key.

    state      meaning
    running    a process claimed the key and generates; whether it still lives, the ledger knows by `request_id`
    done       the answer is stored
    lost       it ended, was charged, and there is no whole answer to give again

A claim is written before the reservation and an answer after the settlement, so that a crash in between leaves a
`running` row that points to what the ledger knows. `gateway.idempotency.keys` decides what follows from that.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from sqlalchemy import ColumnElement, Row, and_, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.idempotency.table import idempotency
from pricing.clock import Clock, system_clock
from storage.database import Database

State = Literal["running", "done", "lost"]

_PURGE_BATCH: Final = 500
_COMPRESS_HERE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, as it was sent."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of an idempotency key. Times in milliseconds since 1970 UTC; `answer` where it is done."""

    key_id: int
    name: str
    body_hash: bytes
    state: State
    request_id: str
    created_at: int
    expires_at: int
    answer: Answer | None = None


class IdempotencyStore:
    """The table `idempotency`. Every method raises LedgerUnavailable while the database is away."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, key_id: int, name: str, body_hash: bytes, request_id: str, *, life_ms: int) -> Claim | None:
        """Claim a free key for a request, and give None; or give the claim that is there already.

        An expired claim counts as none, unless it is still running.
        """
        now = self._clock()
        values = {
            "key_id": key_id,
            "idempotency_key": name,
            "body_hash": body_hash,
            "state": "running",
            "request_id": request_id,
            "created_at": now,
            "expires_at": now + life_ms,
        }
        table = idempotency
        # The two dialects spell this statement alike but don't share its class.
        upsert = postgresql.insert(table) if self._database.is_postgresql else sqlite.insert(table)
        free = upsert.values(values).on_conflict_do_nothing().returning(table.c.request_id)
        async with self._database.write() as connection:
            there = select(table).where(_is(key_id, name))
            row = (await connection.execute(there.with_for_update())).one_or_none()
            if row is not None and row.state != "running" and row.expires_at <= now:
                await connection.execute(delete(table).where(_is(key_id, name)))
                row = None
            if row is None:
                if await connection.scalar(free) is not None:
                    return None
                row = (await connection.execute(there)).one()  # another process was faster
        return await _claim(row)

    async def take_over(self, claim: Claim, body_hash: bytes, request_id: str, *, life_ms: int) -> bool:
        """Put a new request in the place of one that came to nothing; False if somebody else was faster."""
        now = self._clock()
        table = idempotency
        changed = (
            update(table)
            .where(_is(claim.key_id, claim.name), table.c.request_id == claim.request_id, table.c.state != "done")
            .values(
                body_hash=body_hash,
                state="running",
                request_id=request_id,
                created_at=now,
                expires_at=now + life_ms,
            )
        )
        async with self._database.write() as connection:
            return (await connection.execute(changed)).rowcount == 1

    async def finish(self, key_id: int, name: str, request_id: str, answer: Answer, *, life_ms: int) -> None:
        """Store the answer. Its life begins now. Does nothing where the claim has gone to another request."""
        body = await _compressed(answer.body)
        await self._end(
            key_id,
            name,
            request_id,
            state="done",
            response=body,
            status=answer.status,
            content_type=answer.content_type,
            expires_at=self._clock() + life_ms,
        )

    async def lose(self, key_id: int, name: str, request_id: str) -> None:
        """It was charged and can't be answered again."""
        await self._end(key_id, name, request_id, state="lost")

    async def release(self, key_id: int, name: str, request_id: str) -> None:
        """It came to nothing and wasn't charged: the next one may run."""
        table = idempotency
        async with self._database.write() as connection:
            await connection.execute(delete(table).where(_is(key_id, name), table.c.request_id == request_id))

    async def purge(self) -> int:
        """Remove expired claims; give their number."""
        table = idempotency
        old = (
            select(table.c.key_id, table.c.idempotency_key)
            .where(table.c.expires_at <= self._clock())
            .order_by(table.c.expires_at)
            .limit(_PURGE_BATCH)
        )
        removed = 0
        while True:
            async with self._database.write() as connection:
                rows = (await connection.execute(old)).all()
                for key_id, name in rows:
                    await connection.execute(delete(table).where(_is(key_id, name)))
            removed += len(rows)
            if len(rows) < _PURGE_BATCH:
                return removed

    async def _end(self, key_id: int, name: str, request_id: str, **values: object) -> None:
        table = idempotency
        mine = and_(_is(key_id, name), table.c.request_id == request_id)
        async with self._database.write() as connection:
            await connection.execute(update(table).where(mine).values(**values))


def _is(key_id: int, name: str) -> ColumnElement[bool]:
    table = idempotency
    return and_(table.c.key_id == key_id, table.c.idempotency_key == name)


async def _claim(row: Row[Any]) -> Claim:
    answer = None
    if row.state == "done":
        answer = Answer(row.status, row.content_type, await _decompressed(row.response))
    return Claim(
        row.key_id,
        row.idempotency_key,
        bytes(row.body_hash),
        cast(State, row.state),
        row.request_id,
        row.created_at,
        row.expires_at,
        answer,
    )


async def _compressed(body: bytes) -> bytes:
    if len(body) < _COMPRESS_HERE_BYTES:
        return zlib.compress(body, 1)
    return await asyncio.to_thread(zlib.compress, body, 1)


async def _decompressed(body: bytes) -> bytes:
    if len(body) < _COMPRESS_HERE_BYTES:
        return zlib.decompress(body)
    return await asyncio.to_thread(zlib.decompress, body)

"""The table `webhooks`: calls that are promised to clients, kept until they are made.

    generating ──► pending ──► delivered
                      └──────► given_up

A row is `generating` from the promise on and gets its body when the request has ended. Each change names the state
that it leaves, so that of several processes one wins.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Update, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.base import TokenCounts
from gateway.webhooks.table import webhooks
from pricing import tables
from pricing.clock import Clock, system_clock
from pricing.money import Picodollars
from pricing.reservation import Outcome
from storage.database import Database
from storage.text import stored

ERROR_CHARACTERS_MAX = 500
LOST_MS = 60_000  # a live process stores its result well within this after the settlement

_T = webhooks


@dataclass(frozen=True, slots=True)
class Pending:
    """A call to make, at `next_attempt_at` (milliseconds since 1970 UTC). `attempts` were begun before."""

    id: int
    request_id: str
    key_id: int
    url: str
    body: str
    attempts: int
    next_attempt_at: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A promised request whose process died or forgot it, with what the ledger charged for it."""

    request_id: str
    counts: TokenCounts
    cost: Picodollars


@dataclass(frozen=True, slots=True)
class Call:
    """A call as an operator sees it, without what it says."""

    request_id: str
    key_id: int
    url: str
    state: str
    attempts: int
    created_at: int
    next_attempt_at: int
    last_error: str | None


class WebhookStore:
    """All methods raise LedgerUnavailable while the database is away."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self._database = database
        self.now = clock

    async def promise(self, request_id: str, key_id: int, url: str) -> None:
        now = self.now()
        async with self._database.write() as connection:
            await connection.execute(
                insert(_T).values(
                    request_id=request_id,
                    key_id=key_id,
                    url=url,
                    body="",
                    attempts=0,
                    next_attempt_at=now,
                    state="generating",
                    created_at=now,
                )
            )

    async def enqueue(self, connection: AsyncConnection, request_id: str, key_id: int, url: str, body: str) -> None:
        """A call that can be made at once, in the caller's transaction."""
        now = self.now()
        await connection.execute(
            insert(_T).values(
                request_id=request_id,
                key_id=key_id,
                url=url,
                body=body,
                attempts=0,
                next_attempt_at=now,
                state="pending",
                created_at=now,
            )
        )

    async def fulfil(self, request_id: str, body: str) -> bool:
        """The request has ended, and this is what to send. False if another process was faster."""
        ready = update(_T).where(_T.c.request_id == request_id, _T.c.state == "generating")
        return await self._changed(ready.values(body=body, state="pending", next_attempt_at=self.now()))

    async def pending(self, count: int) -> list[Pending]:
        """The calls that are due first, some perhaps in the future."""
        columns = [_T.c[name] for name in Pending.__dataclass_fields__]
        query = select(*columns).where(_T.c.state == "pending").order_by(_T.c.next_attempt_at).limit(count)
        async with self._database.read() as connection:
            return [Pending(*row) for row in await connection.execute(query)]

    async def claim(self, call: Pending, until: int) -> bool:
        """Begin an attempt. Should this process die in it, another may begin after `until`."""
        same = and_(_T.c.id == call.id, _T.c.state == "pending", _T.c.attempts == call.attempts)
        return await self._changed(update(_T).where(same).values(attempts=call.attempts + 1, next_attempt_at=until))

    async def delivered(self, call: Pending) -> None:
        """Done; the text is not kept."""
        await self._end(call, state="delivered", body="", next_attempt_at=self.now(), last_error=None)

    async def postpone(self, call: Pending, pause_ms: int, error: str) -> None:
        await self._end(call, next_attempt_at=self.now() + pause_ms, last_error=_short(error))

    async def give_up(self, call: Pending, error: str) -> None:
        await self._end(call, state="given_up", body="", next_attempt_at=self.now(), last_error=_short(error))

    async def lost(self) -> list[Lost]:
        """Promised requests that nobody generates any more: settled as interrupted, or ended a while ago."""
        entries, open_ones = tables.entries, tables.reservations
        a_while_ago = self.now() - LOST_MS
        gone = or_(
            entries.c.outcome == Outcome.INTERRUPTED.value,
            entries.c.settled_at < a_while_ago,
            and_(
                entries.c.request_id.is_(None),
                _T.c.created_at < a_while_ago,
                ~exists().where(open_ones.c.request_id == _T.c.request_id),
            ),
        )
        query = (
            select(
                _T.c.request_id,
                entries.c.prompt_tokens,
                entries.c.cached_tokens,
                entries.c.completion_tokens,
                entries.c.cost,
            )
            .select_from(_T.outerjoin(entries, entries.c.request_id == _T.c.request_id))
            .where(_T.c.state == "generating", gone)
        )
        async with self._database.read() as connection:
            return [
                Lost(row[0], TokenCounts(row[1] or 0, row[2] or 0, row[3] or 0), Picodollars(row[4] or 0))
                for row in await connection.execute(query)
            ]

    async def latest(self, count: int) -> list[Call]:
        """Calls of whatever state, the latest first."""
        columns = [_T.c[name] for name in Call.__dataclass_fields__]
        async with self._database.read() as connection:
            rows = await connection.execute(select(*columns).order_by(_T.c.id.desc()).limit(count))
            return [Call(*row) for row in rows]

    async def counts(self) -> dict[str, int]:
        """How many calls are in which state."""
        query = select(_T.c.state, func.count()).group_by(_T.c.state)
        async with self._database.read() as connection:
            return {str(state): int(count) for state, count in await connection.execute(query)}

    async def forget(self, before: int) -> None:
        """Take away the calls that ended before this time."""
        ended = _T.c.state.in_(["delivered", "given_up"])
        async with self._database.write() as connection:
            await connection.execute(delete(_T).where(ended, _T.c.next_attempt_at < before))

    async def _end(self, call: Pending, **values: Any) -> None:
        mine = and_(_T.c.id == call.id, _T.c.state == "pending", _T.c.attempts == call.attempts + 1)
        await self._changed(update(_T).where(mine).values(**values))

    async def _changed(self, statement: Update) -> bool:
        async with self._database.write() as connection:
            return bool((await connection.execute(statement)).rowcount)


def _short(error: str) -> str:
    return stored(error, ERROR_CHARACTERS_MAX)

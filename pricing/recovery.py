"""Settling the requests of processes that died.

A process is dead when its beat stayed the same for its whole lease, measured by our own clock while we could read the
database all along. No clocks are compared, so none need agree, and an outage of the database, through which nobody
could renew a lease, kills nobody: each watcher starts to count anew. On the same machine a process that is gone is
recovered at once.

A request is settled as `interrupted` with its last checkpoint. If its process lives after all (it was suspended, or cut
off from the database for longer than its lease), that entry is final. Its next checkpoint finds the reservation gone,
and so does `Reservation.confirm`, which a stream awaits after a standstill: the request is ended, counted as overtaken
and logged. What was delivered in between is the operator's loss, never the customer's.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from sqlalchemy import Row, delete, select

from pricing import tables
from pricing.charging import Ending, charge
from pricing.clock import Clock
from pricing.commit import Batch, apply
from pricing.cost import Tokens
from pricing.money import Picodollars
from pricing.price import Price
from pricing.process import Process, adopt_orphans, is_gone
from pricing.reservation import Final as FinalState
from pricing.reservation import Outcome
from storage.database import Database

logger = logging.getLogger("farebox.ledger")

_BATCH: Final = 500


class Recovery:
    """Watches the other processes' beats and settles for the dead."""

    def __init__(self, database: Database, process: Process, clock: Clock, monotonic: Clock) -> None:
        self._database = database
        self._process = process
        self._clock = clock
        self._monotonic = monotonic
        self._seen: dict[str, tuple[int, int]] = {}  # process id -> beat, since when it is that
        self._looked_at: int | None = None

    async def run(self) -> int:
        """Look once; settle for those that are dead; give the number of requests. Raises LedgerUnavailable.

        Call it at least twice per lease.
        """
        settled = 0
        for row in await self._dead():
            settled += await self._settle_for(row)
        return settled

    async def _dead(self) -> list[Row[Any]]:
        table = tables.processes
        async with self._database.read() as connection:
            others = (await connection.execute(select(table).where(table.c.id != self._process.id))).all()
            owners = set(await connection.scalars(select(tables.reservations.c.process_id).distinct()))
        if owners - {row.id for row in others} - {self._process.id}:
            async with self._database.write() as connection:
                await adopt_orphans(connection, self._process.lease_ms, self._clock())
        now = self._monotonic()
        if self._looked_at is not None and now - self._looked_at > self._process.lease_ms // 2:
            self._seen.clear()  # we could not look, so perhaps they could not beat
        self._looked_at = now
        seen = {}
        for row in others:
            beat, since = self._seen.get(row.id, (row.beat, now))
            seen[row.id] = (beat, since) if beat == row.beat else (row.beat, now)
        self._seen = seen
        return [row for row in others if self._is_gone(row) or now - seen[row.id][1] >= row.lease_ms]

    def _is_gone(self, row: Row[Any]) -> bool:
        same_machine = bool(self._process.machine) and row.machine == self._process.machine
        return same_machine and is_gone(row.pid, row.pid_started)

    async def _settle_for(self, process: Row[Any]) -> int:
        settled = 0
        while True:
            batch_settled, more = await self._settle_some(process)
            settled += batch_settled
            if not more:
                break
        if settled:
            logger.warning("Settled %d requests of process %s, which died, as interrupted", settled, process.id)
        return settled

    async def _settle_some(self, process: Row[Any]) -> tuple[int, bool]:
        table, open_ones = tables.processes, tables.reservations
        claim = select(table.c.beat).where(table.c.id == process.id).with_for_update(skip_locked=True)
        async with self._database.write() as connection:
            beat = await connection.scalar(claim)
            if beat != process.beat:  # alive, or another replica is at it
                return 0, False
            some = select(open_ones).where(open_ones.c.process_id == process.id).limit(_BATCH)
            finals = [_interrupted(row) for row in await connection.execute(some)]
            if not finals:
                await connection.execute(delete(table).where(table.c.id == process.id))
                return 0, False
            written = await connection.run_sync(apply, process.id, Batch(finals=finals), self._clock())
        return len(written.ended), True


def _interrupted(row: Row[Any]) -> FinalState:
    tokens = Tokens(row.prompt_tokens, row.cached_tokens, row.completion_tokens)
    price = Price(row.price_input, row.price_output, row.price_cached_input)
    charged = Picodollars(min(charge(price, tokens, Ending(Outcome.INTERRUPTED)), row.amount))
    return FinalState(row.request_id, row.account_id, row.key_id, tokens, charged, Outcome.INTERRUPTED)

"""The ledger: reserve, then settle or void; durable, exactly once, never more than the limit.

    ledger = await Ledger.open(database)
    reservation = ledger.reserve(request)       # refuses at once who has no money
    await reservation.stands()                  # while the engine prefills; no token leaves before
    reservation.observe(tokens)                 # whenever there are more
    reservation.settle(tokens, Outcome.FINISHED)    # on every way out, in a `finally`

Invariants, whatever the number of processes: spent + reserved <= limit at every reservation, for the account and for
the key; one entry for each durable reservation; the sum of a key's entries is its spend. `pricing.tables` says
which locks make them true, `pricing.recovery` what happens when a process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from pricing.cost import worst_case
from pricing.errors import DuplicateRequest
from pricing.process import Process
from pricing.recovery import Recovery
from pricing.reservation import Reservation, ReserveRequest
from pricing.retention import Retention
from pricing.settings import LedgerSettings
from pricing.writer import Writer
from storage.database import Database
from storage.errors import LedgerUnavailable
from storage.migrations import check

__all__ = ["Ledger", "LedgerSettings"]

logger = logging.getLogger("farebox.ledger")


class Ledger:
    """One process's part of the ledger. All methods belong to one event loop."""

    def __init__(self, database: Database, settings: LedgerSettings) -> None:
        self._settings = settings
        self._database = database
        self._process = Process(settings.lease_ms, settings.clock())
        self._writer = Writer(database, self._process, settings)
        self._recovery = Recovery(database, self._process, settings.clock, settings.monotonic)
        self._retention = Retention(database, settings.entry_days, settings.clock)
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls,
        database: Database,
        settings: LedgerSettings = LedgerSettings(),  # noqa: B008  (frozen)
    ) -> Ledger:
        """Start the writer, the lease and recovery. Raises LedgerUnavailable, SchemaMismatch."""
        await check(database)
        ledger = cls(database, settings)
        await ledger._process.heartbeat(database)
        await ledger._retention.run()
        await ledger._recovery.run()
        ledger._tasks = [
            asyncio.create_task(ledger._writer.run(), name="ledger writer"),
            asyncio.create_task(ledger._keep_house(), name="ledger recovery"),
        ]
        return ledger

    async def close(self) -> None:
        """Write everything that can be written within `close_ms_max`, then stop. Settle all requests first: what still
        runs is left to recovery, with a last checkpoint."""
        self._closing = True
        try:
            async with asyncio.timeout(self._settings.close_ms_max / 1000):
                while not self._writer.is_idle:
                    await self._writer.hurry()
        except TimeoutError:
            logger.warning("The ledger closes with %d settlements unwritten", self.unsettled)
        await self.abandon()
        with contextlib.suppress(LedgerUnavailable):
            await self._writer.checkpoint()
            await self._process.farewell(self._database)

    async def abandon(self) -> None:
        """Stop at once and write nothing, as a crash would: recovery does the rest."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def process_id(self) -> str:
        """This process among those that share the ledger; its row is gone once others have taken it for dead."""
        return self._process.id

    @property
    def available(self) -> bool:
        """Whether the last commit worked. False refuses new reservations; it is retried until it works."""
        return self._writer.available and not self._closing

    @property
    def stalled(self) -> bool:
        """Whether nothing can be written because another process holds the rows of all who ask."""
        return self._writer.stalled

    @property
    def unsettled(self) -> int:
        """Settlements (and voids) that are not durable yet."""
        return self._writer.unsettled

    @property
    def running(self) -> int:
        """Reservations that are neither settled nor void."""
        return len(self._writer.running)

    @property
    def overtaken(self) -> int:
        """Settlements that came after another process had settled the request as interrupted."""
        return self._writer.overtaken

    def reserve(self, request: ReserveRequest) -> Reservation:
        """Claim the worst case of a request. Synchronous: the durable part runs on, see `Reservation.stands`.

        Raises InsufficientFunds where the last known balance can't cover it, LedgerUnavailable while the database is
        away or the ledger is closing, DuplicateRequest, InvalidAmount where the worst case is more than the ledger
        holds.
        """
        if not self.available:
            raise LedgerUnavailable("this process is stopping" if self._closing else "the database is away")
        if self._writer.knows(request.request_id):
            raise DuplicateRequest(request.request_id)
        amount = worst_case(request.price, request.prompt_tokens, request.completion_tokens_max)
        key = request.key
        likely = self._writer.known.require(key.account_id, key.id, amount, request.model, self._settings.clock())
        reservation = Reservation(request, amount, likely=likely, keeper=self._writer)
        self._writer.claim(reservation)
        return reservation

    async def flush(self) -> None:
        """Return once nothing waits to be written. Raises LedgerUnavailable while the database is away."""
        while not self._writer.is_idle:
            if not self._writer.available:
                raise LedgerUnavailable("the database is away")
            await self._writer.hurry()

    async def settled(self) -> None:
        """Return once every settlement so far is durable, for whoever reads next; at once if the database is away."""
        await self._writer.write_finals()

    async def recover(self) -> int:
        """Settle the requests of processes whose lease ran out; give their number. Runs by itself, too."""
        return await self._recovery.run()

    async def checkpoint(self) -> None:
        """Store the counts of running requests now. Runs by itself, too."""
        await self._writer.checkpoint()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_ms / 5000)
            try:
                await self._recovery.run()
                await self._retention.run()
            except LedgerUnavailable as error:
                logger.warning("Recovery waits: %s", error)
            except Exception:
                logger.exception("Recovery failed; it is tried again")

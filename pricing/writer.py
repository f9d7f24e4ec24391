"""The one task per process that writes: group commits, checkpoints, heartbeats, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

from pricing.aside import Aside
from pricing.clock import monotonic
from pricing.commit import Batch, Written, commit, missing_entries, write_checkpoints
from pricing.cost import NO_TOKENS
from pricing.known import KnownBalances
from pricing.money import Picodollars
from pricing.process import Process
from pricing.reservation import Final as FinalState
from pricing.reservation import Outcome, Reservation
from pricing.settings import LedgerSettings
from storage.database import Database
from storage.errors import LedgerUnavailable, RowsLocked

logger = logging.getLogger("farebox.ledger")

_RETRY_MS_MIN: Final = 50


class Writer:
    """Queues, and the loop that empties them. While the database is away it fails claims and keeps finals."""

    def __init__(self, database: Database, process: Process, settings: LedgerSettings) -> None:
        self.available = True
        self.overtaken = 0
        self.running: dict[str, Reservation] = {}  # claimed and without a final
        self.known = KnownBalances(settings.balance_age_ms_max)
        self._database = database
        self._process = process
        self._settings = settings
        self._claims: deque[Reservation] = deque()
        self._finals: deque[FinalState] = deque()
        self._held: dict[str, Reservation] = {}  # settled, not written yet
        self._stuck: list[FinalState] = []
        self._aside = Aside(settings.lock_patience_ms)
        self._written_at = monotonic()
        self._in_flight = 0
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._linger: asyncio.TimerHandle | None = None
        self._commit_not_before = monotonic()
        self._checkpoint_due = monotonic() + settings.checkpoint_ms
        self._heartbeat_due = monotonic() + settings.heartbeat_ms

    @property
    def silence_max(self) -> float:
        """Half a lease: the last heartbeat was some time before this process stood still."""
        return self._settings.lease_ms / 2000

    @property
    def unsettled(self) -> int:
        """Ends of reservations that are not durable yet."""
        return len(self._held)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be written."""
        return not (self._claims or self._finals or self._in_flight or self._held or len(self._aside))

    @property
    def stalled(self) -> bool:
        """Whether nothing could be written since what waits now began to wait for rows that another process holds."""
        return self._aside.since is not None and self._written_at < self._aside.since

    def knows(self, request_id: str) -> bool:
        """Whether a request of this id is not yet written to its end."""
        return request_id in self.running or request_id in self._held

    def claim(self, reservation: Reservation) -> None:
        """Queue a reservation; it is decided by the next commit."""
        self.running[reservation.request_id] = reservation
        self._claims.append(reservation)
        self._wake.set()

    def finish(self, reservation: Reservation, final: FinalState) -> None:
        """Queue the end of a reservation. One that isn't decided yet is queued when it is."""
        self.running.pop(reservation.request_id, None)
        if reservation.is_durable:
            self._queue_final(reservation, final)
        elif not reservation.is_decided:
            self._held[reservation.request_id] = reservation

    def _queue_final(self, reservation: Reservation, final: FinalState) -> None:
        self._held[reservation.request_id] = reservation
        key, released = reservation.request.key, reservation.amount - final.cost
        self.known.hold(key.account_id, key.id, -released, reservation.request.model, reservation.reserved_at)
        self._finals.append(final)
        if self._linger is None:  # nobody waits for an end: let some gather
            self._linger = self._loop.call_later(self._settings.settle_linger_ms / 1000, self._stop_lingering)

    def _stop_lingering(self) -> None:
        self._linger = None
        self._wake.set()

    async def write_finals(self) -> None:
        """Write what lingers now, and return when it is written, or at once while the database is away."""
        waiting = self._held.keys() - {final.request_id for final in self._stuck} - self._aside.finals
        while self.available and waiting & self._held.keys():
            await self.hurry()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wait()
            try:
                await self._step()
            except LedgerUnavailable as error:
                await self._outlast(error)
            except Exception:
                logger.exception("The ledger's writer failed; it goes on")
                await asyncio.sleep(_RETRY_MS_MIN / 1000)

    async def _step(self) -> None:
        """Whatever is due now."""
        while self._claims or self._finals or self._aside.is_due(monotonic()):
            if (early := self._commit_not_before - monotonic()) > 0:
                await asyncio.sleep(early / 1000)
            self._commit_not_before = monotonic() + self._settings.commit_interval_ms
            await self._commit_batch()
            if monotonic() >= self._checkpoint_due:
                break
        if monotonic() >= self._checkpoint_due:
            await self.checkpoint()
        if monotonic() >= self._heartbeat_due:
            await self._process.heartbeat(self._database)
            self._heartbeat_due = monotonic() + self._settings.heartbeat_ms
            self._finals.extend(self._stuck)
            self._stuck.clear()
        if self._claims or self._finals:
            self._wake.set()

    async def checkpoint(self) -> None:
        """Store the counts that changed since the last time."""
        changed = [one for one in self.running.values() if one.is_durable and one.tokens != one.tokens_written]
        if changed:
            await self.write_checkpoint(changed)
        self._checkpoint_due = monotonic() + self._settings.checkpoint_ms

    async def write_checkpoint(self, reservations: Sequence[Reservation]) -> None:
        """Store the counts of these, and tell those that another process has settled."""
        written = [one.tokens for one in reservations]
        gone = await write_checkpoints(self._database, reservations)
        overtaken = []
        for reservation, tokens in zip(reservations, written, strict=True):
            if reservation.request_id not in gone:
                reservation.tokens_written = tokens
            elif self.running.pop(reservation.request_id, None) is not None:  # else it was settled here meanwhile
                overtaken.append(reservation)
        for reservation in overtaken:
            key = reservation.request.key
            self.known.hold(
                key.account_id, key.id, -reservation.amount, reservation.request.model, reservation.reserved_at
            )
            reservation.overtake()
        self._tell_overtaken([reservation.request_id for reservation in overtaken])

    async def _commit_batch(self) -> None:
        again = self._aside.is_due(monotonic())
        batch = self._aside.take(self._settings.batch_max) if again else self._next_batch()
        if not batch:
            return
        self._in_flight = len(batch)
        started = time.perf_counter_ns()
        try:
            await self._commit(batch, skip_locked=again)
        except LedgerUnavailable as error:
            self._finals.extendleft(reversed(batch.finals))
            for claim in batch.claims:
                if not claim.is_decided:  # a part of the batch may have been written
                    self._refuse(claim, error)
            raise
        finally:
            self._in_flight = 0
            progress, self._progress = self._progress, asyncio.Event()
            progress.set()
        if self._settings.commit_observer is not None:
            self._settings.commit_observer(time.perf_counter_ns() - started, len(batch))

    def _next_batch(self) -> Batch:
        count = self._settings.batch_max
        finals = [self._finals.popleft() for _ in range(min(count, len(self._finals)))]
        claims = [self._claims.popleft() for _ in range(min(count, len(self._claims)))]
        return self._aside.sift(Batch(finals, claims), monotonic())

    async def _commit(self, batch: Batch, *, skip_locked: bool = False) -> None:
        now = self._settings.clock()
        try:
            written = await commit(self._database, self._process.id, batch, now, skip_locked=skip_locked)
        except LedgerUnavailable:
            raise
        except Exception as error:
            await self._commit_apart(batch, error, skip_locked)
        else:
            self._aside.learn(batch, written.locked, monotonic())
            rest = self._aside.sift(batch, monotonic())
            for claim in self._aside.impatient(monotonic()):
                self._drop(claim)
                claim.decide(RowsLocked())
            if rest:
                self._written_at = monotonic()
                await self._take_in(rest, written)

    async def _commit_apart(self, batch: Batch, error: Exception, skip_locked: bool) -> None:
        """Something in the batch can't be written at all. Halve it until that one is alone; the rest is written."""
        finals, claims = list(batch.finals), list(batch.claims)
        if len(finals) + len(claims) == 1:
            logger.error("The ledger could not write one operation: %s", error, exc_info=error)
            self._stuck.extend(finals)
            for claim in claims:
                self._refuse(claim, LedgerUnavailable("this request could not be recorded"))
            return
        half_finals, half_claims = (len(finals) + 1) // 2, len(claims) // 2
        for part in (
            Batch(finals[:half_finals], claims[:half_claims]),
            Batch(finals[half_finals:], claims[half_claims:]),
        ):
            if part:
                await self._commit(part, skip_locked=skip_locked)

    async def _take_in(self, batch: Batch, written: Written) -> None:
        now = self._settings.clock()
        self.known.learn(written.accounts, written.keys, now)
        for final in batch.finals:
            reservation = self._held.pop(final.request_id, None)
            if reservation is not None:
                model = reservation.request.model
                self.known.hold(final.account_id, final.key_id, -final.cost, model, reservation.reserved_at)
        for claim in batch.claims:
            refusal = written.refusals.get(claim.request_id)
            if refusal is None:
                self._stand(claim, written.reserved_at[claim.request_id])
            else:
                self._drop(claim)
                claim.decide(refusal)
        absent = [final for final in batch.finals if final.request_id not in written.ended]
        if absent:
            await self._explain(absent)

    def _stand(self, claim: Reservation, reserved_at: int) -> None:
        key = claim.request.key
        claim.reserved_at = reserved_at
        self.known.hold(key.account_id, key.id, claim.amount, claim.request.model, reserved_at)
        claim.decide(None)
        if claim.final is not None:
            self._queue_final(claim, claim.final)

    def _drop(self, claim: Reservation) -> None:
        self.running.pop(claim.request_id, None)
        self._held.pop(claim.request_id, None)

    def _refuse(self, claim: Reservation, error: LedgerUnavailable) -> None:
        """The commit may have happened all the same: void the claim, if it is there, when the database is back."""
        self._drop(claim)
        claim.decide(error)
        key = claim.request.key
        why, nothing = "the database did not confirm the reservation", Picodollars(0)
        void = FinalState(claim.request_id, key.account_id, key.id, NO_TOKENS, nothing, Outcome.VOID, why)
        self._finals.append(void)

    async def _explain(self, absent: list[FinalState]) -> None:
        """These had no reservation: they were written before an error that hid it, or by another process."""
        charged = [final.request_id for final in absent if final.outcome is not Outcome.VOID]
        if not charged:
            return
        self._tell_overtaken(await missing_entries(self._database, charged, self._process.id))

    def _tell_overtaken(self, request_ids: Collection[str]) -> None:
        if request_ids:
            self.overtaken += len(request_ids)
            logger.error(
                "%d requests were settled as interrupted by another process, which took this one for dead; "
                "its entries stand. First: %s",
                len(request_ids),
                min(request_ids),
            )

    async def _outlast(self, error: LedgerUnavailable) -> None:
        """Refuse what waits, keep what is to be settled, and try until the database can be written again."""
        logger.error("The ledger is unavailable: %s %d settlements wait", error, len(self._held))
        self.available = False
        pause = _RETRY_MS_MIN
        self._claims.extend(self._aside.give_up_claims())
        while not self.available:
            while self._claims:
                self._refuse(self._claims.popleft(), error)
            await asyncio.sleep(pause / 1000)
            pause = min(2 * pause, self._settings.retry_ms_max)
            with contextlib.suppress(LedgerUnavailable):
                await self._process.heartbeat(self._database)  # a write: reading alone would prove too little
                self.available = True
        self._checkpoint_due = monotonic()
        self._wake.set()
        logger.warning("The ledger is available again")

    async def _wait(self) -> None:
        due = min(self._checkpoint_due, self._heartbeat_due, self._aside.retry_at or self._heartbeat_due) - monotonic()
        if due > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due / 1000):
                    await self._wake.wait()
        self._wake.clear()

    async def hurry(self) -> None:
        """Let nothing linger, and return after the next group commit, whether it worked or not."""
        self._wake.set()
        await self._progress.wait()

"""One request's way: price, reserve, generate, settle."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from engine.errors import EngineError
from gateway.errors import GatewayError, TookTooLong, shutting_down
from gateway.jobs import Job
from gateway.metered import Admitted, Metered
from gateway.metrics import Metrics
from pricing.errors import PricingError
from pricing.ledger import Ledger
from pricing.reservation import Outcome, Reservation


class Pipeline:
    """Runs jobs. `cut_off` ends the running ones, at the end of the drain."""

    def __init__(self, ledger: Ledger, metrics: Metrics, *, seconds_max: float) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._seconds_max = seconds_max
        self._running: dict[asyncio.Task[Any], Metered] = {}
        self._deadlines: dict[asyncio.Task[Any], asyncio.Timeout] = {}
        self.cutting = False

    @asynccontextmanager
    async def run(
        self, job: Job, report: dict[str, object], admitted: Admitted | None = None
    ) -> AsyncIterator[Metered]:
        """A generation whose first delta has arrived and whose reservation stands; settled on every way out.

        `admitted` is called earlier: once the engine has taken the job and the reservation stands. `report` is filled
        with tokens, cost and times at the end. Raises InsufficientFunds, LedgerUnavailable, EngineOverloaded,
        EngineDead, GenerationFailed, TookTooLong.
        """
        if self.cutting:
            raise shutting_down()  # it was being rendered when the others were cut off
        reservation = self._reserve(job)
        metered = Metered(job, reservation, self._metrics.stream_timer(job.served.model.name, job.arrived))
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = metered
        try:
            async with self._deadline(job, task):
                await metered.begin(admitted)
                yield metered
        except PricingError as error:
            metered.void(str(error))
            raise
        except BaseException as error:
            metered.settle(self._outcome(error))
            raise
        finally:
            del self._running[task]
            metered.settle(Outcome.CLIENT_GONE)  # does nothing where it is settled or void
            report |= metered.report()
            await metered.close()

    @asynccontextmanager
    async def _deadline(self, job: Job, task: "asyncio.Task[Any]") -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(job.arrived + self._seconds_max - time.perf_counter()) as deadline:
                self._deadlines[task] = deadline
                yield
        except TimeoutError as error:
            if deadline.expired():
                raise TookTooLong(self._seconds_max) from error
            raise
        finally:
            del self._deadlines[task]

    def cut_off(self) -> None:
        """Cancel what still runs; each request is settled for what it got."""
        self.cutting = True
        for task in self._running:
            task.cancel()

    async def drained(self, seconds: float | None = None) -> None:
        """Wait until what runs now has ended, at most this long."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)

    def ending(self) -> GatewayError | None:
        """Why the current task's request is being cancelled: we end it, or (None) its client went away."""
        if self.cutting:
            return shutting_down()
        deadline = self._deadlines.get(asyncio.current_task())  # type: ignore[arg-type]  # None is no key
        return TookTooLong(self._seconds_max) if deadline is not None and deadline.expired() else None

    @property
    def running(self) -> int:
        return len(self._running)

    def loads(self) -> dict[str, tuple[int, int]]:
        """By model: how many requests wait for their first token, and how many have theirs."""
        loads: dict[str, tuple[int, int]] = {}
        for metered in self._running.values():
            waiting, generating = loads.get(metered.job.served.model.name, (0, 0))
            begun = metered.counts.completion > 0
            loads[metered.job.served.model.name] = (waiting + (not begun), generating + begun)
        return loads

    def _reserve(self, job: Job) -> Reservation:
        trace = job.trace
        trace.begin("reserve")
        try:
            reservation = self._ledger.reserve(job.reservation())
        except PricingError:
            trace.end("reserve")
            raise
        if trace.on:
            reservation.when_decided(lambda: trace.end("reserve"))
        return reservation

    def _outcome(self, error: BaseException) -> Outcome:
        if isinstance(error, EngineError):
            return Outcome.ENGINE_ERROR
        if isinstance(error, TookTooLong):
            return Outcome.TIMED_OUT
        return Outcome.SHUTDOWN if self.cutting else Outcome.CLIENT_GONE

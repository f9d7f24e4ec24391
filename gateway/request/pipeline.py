"""One request's way: admit, price, reserve, generate, settle."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from engine.errors import EngineError, EngineOverloaded, PromptError
from gateway.errors import ShuttingDown, TookTooLong, from_exception
from gateway.request.jobs import Job
from gateway.request.metered_generation import Admitted, Metered
from gateway.request.turns import Turns
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.receipt import Receipt
from pricing.charging import charged_tokens
from pricing.cost import NO_TOKENS
from pricing.errors import Overtaken
from pricing.ledger import Ledger
from pricing.money import Picodollars
from pricing.reservation import Outcome, Reservation
from pricing.tier import Tier
from storage.errors import LedgerError


class Pipeline:
    """Runs jobs. `cut_off` ends the running ones, at the end of the drain."""

    def __init__(self, ledger: Ledger, metrics: Metrics, turns: Turns, *, seconds_max: float) -> None:
        self._ledger = ledger
        self._turns = turns
        self._metrics = metrics
        self._seconds_max = seconds_max
        self._running: dict[Metered, _Ending] = {}
        self._cutting = False

    @asynccontextmanager
    async def run(self, job: Job, admitted: Admitted | None = None) -> AsyncIterator[Metered]:
        """A generation whose first delta has arrived and whose reservation is durable; settled on every way out.

        `admitted` is called earlier: once the engine has taken the job and the reservation is durable. Raises
        RateLimited, Conflict, Replayed, InsufficientFunds, LedgerUnavailable, EngineOverloaded, EngineDead,
        GenerationFailed, TookTooLong, ShuttingDown, Overtaken.
        """
        await self._admit(job)
        job.trace.begin("reserve")
        reservation = self._ledger.reserve(job.priced())
        if job.trace.on:
            reservation.when_decided(partial(job.trace.end, "reserve"))
        timer = self._metrics.stream_timer(job.served.model.name, job.tier, job.arrived)
        turn = self._turns.turn(job.served.engine, job.tier, job.key, job.prompt_tokens, job.completion_tokens_max)
        metered = Metered(job, reservation, timer, turn)
        failure: BaseException | None = None
        try:
            async with self._until_ended(metered, reservation):
                await metered.begin(admitted)
                yield metered
        except BaseException as error:
            failure = error
            raise
        finally:
            receipt = _settle(metered, reservation, failure)
            timer.end(receipt)
            turn.done(receipt.used or 0, receipt.counts.completion)
            await metered.close()

    async def _admit(self, job: Job) -> None:
        """The limits, and the claim on the Idempotency-Key."""
        await job.admission.take_tokens(job.served.model.name, job.prompt_tokens, job.completion_tokens_max)
        job.admission.used(0)  # until it has come to something
        if job.attempt is not None:
            await job.attempt.claim(job.request_id)
        if self._cutting:
            raise ShuttingDown()  # it was being rendered when the others were cut off

    @asynccontextmanager
    async def _until_ended(self, metered: Metered, reservation: Reservation) -> AsyncIterator[None]:
        """What ends it early is raised as an error of its own: the limit of time, a shutdown, another process."""
        task = asyncio.current_task()
        assert task is not None
        ending = self._running[metered] = _Ending(task)
        reservation.when_overtaken(lambda: ending.end(Overtaken(metered.job.request_id)))
        try:
            async with asyncio.timeout(metered.job.arrived + self._seconds_max - time.perf_counter()) as deadline:
                yield
        except TimeoutError as error:
            if deadline.expired():
                raise TookTooLong(self._seconds_max) from error
            raise
        except asyncio.CancelledError:
            if ending.reason is None or task.uncancel() > 0:
                raise  # the client has left
            raise ending.reason from None
        finally:
            del self._running[metered]

    def cut_off(self) -> None:
        """End what still runs; each request is settled for what it got."""
        self._cutting = True
        for ending in self._running.values():
            ending.end(ShuttingDown())

    async def drained(self, seconds: float | None = None) -> None:
        """Wait until what runs now has ended, at most this long."""
        if self._running:
            await asyncio.wait({ending.task for ending in self._running.values()}, timeout=seconds)

    @property
    def running(self) -> int:
        return len(self._running)

    def running_of(self, model: str) -> int:
        """How many run on one model."""
        return sum(metered.job.served.model.name == model for metered in self._running)

    def loads(self) -> dict[tuple[str, Tier], "Load"]:
        """By model and tier: what waits for its first token, and what has it."""
        loads: dict[tuple[str, Tier], Load] = {}
        for metered in self._running:
            job = metered.job
            load = loads.setdefault((job.served.model.name, job.tier), Load())
            if metered.counts.completion > 0:
                load.generating += 1
            else:
                load.waiting += 1
                load.waiting_since = min(load.waiting_since, job.arrived)
        return loads


@dataclass(slots=True)
class Load:
    """How many requests wait for their first token, the oldest of them since when (`time.perf_counter()`), and how many
    have it."""

    waiting: int = 0
    generating: int = 0
    waiting_since: float = math.inf


@dataclass(slots=True)
class _Ending:
    """How a running request is ended from outside: its task is cancelled, and raises the reason."""

    task: "asyncio.Task[object]"
    reason: Exception | None = None

    def end(self, reason: Exception) -> None:
        if self.reason is None:
            self.reason = reason
            self.task.cancel()


def _settle(metered: Metered, reservation: Reservation, failure: BaseException | None) -> Receipt:
    """Charge by the table of `pricing.charging`, once, and tell the job. No other task can come in between."""
    job = metered.job
    job.trace.end("first_token")
    job.trace.end("generate")
    job.trace.begin("settle")
    outcome = _outcome(metered, failure)
    ending = metered.ending(outcome)
    tokens = reservation.tokens_written if outcome is Outcome.INTERRUPTED else metered.tokens
    charged, cost = charged_tokens(tokens, ending), Picodollars(0)
    if charged == NO_TOKENS:
        reservation.void(_reason(outcome, failure))
    else:
        cost = reservation.settle(charged, outcome)
    receipt = Receipt(metered.counts, charged, cost, outcome, ending.room is False, metered.first_token_seconds)
    job.admission.used(receipt.used)
    if job.attempt is not None:
        job.attempt.charged = cost > 0
    job.settled(receipt)
    job.trace.end("settle")
    return receipt


def _outcome(metered: Metered, failure: BaseException | None) -> Outcome:
    finished = metered.finished and metered.kept
    match failure:
        case None | asyncio.CancelledError() | TookTooLong() | ShuttingDown() if finished:
            return Outcome.FINISHED  # its client may not have read all of it
        case asyncio.CancelledError():
            return Outcome.SHUTDOWN if metered.job.whole else Outcome.CLIENT_GONE
        case TookTooLong():
            return Outcome.TIMED_OUT
        case ShuttingDown():
            return Outcome.SHUTDOWN
        case Overtaken():
            return Outcome.INTERRUPTED
        case LedgerError() | PromptError() | EngineOverloaded():
            return Outcome.VOID  # it was refused
        case EngineError():
            return Outcome.ENGINE_ERROR
        case _:
            return Outcome.INTERNAL_ERROR


def _reason(outcome: Outcome, failure: BaseException | None) -> str:
    """Why nothing is charged, in a word: what an engine says may hold words of the prompt."""
    return from_exception(failure).code if outcome is Outcome.VOID and isinstance(failure, Exception) else outcome

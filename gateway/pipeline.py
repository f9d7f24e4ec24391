"""One request's way: price, reserve, generate, settle."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from engine.base import Delta, EngineError, Generation, Prompt, TokenCounts
from gateway.errors import GatewayError, InvalidRequest, TookTooLong, shutting_down
from gateway.fleet import Served
from gateway.generations import Part, start
from gateway.metrics import Metrics, StreamTimer
from pricing.cost import Tokens, cost
from pricing.errors import PricingError
from pricing.keys import Key
from pricing.ledger import Ledger
from pricing.money import Picodollars, format_usd
from pricing.reservation import Outcome, Reservation, ReserveRequest


@dataclass(frozen=True, slots=True)
class Job:
    """What to generate, for whom. Several parts (prompts) are one reservation and one entry of the ledger.

    `request_id` is made by the gateway and names the request in the ledger; `arrived` is `time.perf_counter()` when
    the request came in.
    """

    request_id: str
    key: Key
    served: Served
    route: str
    parts: tuple[Part, ...]
    arrived: float
    stream: bool = True
    user: str | None = None
    trace_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        return sum(part.prompt.tokens for part in self.parts)

    @property
    def completion_tokens_max(self) -> int:
        """What may be generated at most, over all choices."""
        return sum(part.sampling.n * part.sampling.max_tokens for part in self.parts)

    @property
    def choices(self) -> int:
        return sum(part.sampling.n for part in self.parts)


Admitted = Callable[[], Awaitable[None]]


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
    ) -> AsyncIterator["Metered"]:
        """A generation whose first delta has arrived and whose reservation stands; settled on every way out.

        `admitted` is called earlier: once the engine has taken the job and the reservation stands. `report` is filled
        with tokens, cost and times at the end. Raises InsufficientFunds, LedgerUnavailable, EngineOverloaded,
        EngineDead, GenerationFailed, TookTooLong.
        """
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
        return self._ledger.reserve(
            ReserveRequest(
                request_id=job.request_id,
                key=job.key,
                model=job.served.model.name,
                price=job.served.model.price,
                prompt_tokens=job.prompt_tokens,
                completion_tokens_max=job.completion_tokens_max,
                route=job.route,
                started_at=time.time_ns() // 1_000_000,
                user=job.user,
            )
        )

    def _outcome(self, error: BaseException) -> Outcome:
        if isinstance(error, EngineError):
            return Outcome.ENGINE_ERROR
        if isinstance(error, TookTooLong):
            return Outcome.TIMED_OUT
        return Outcome.SHUTDOWN if self.cutting else Outcome.CLIENT_GONE


class Metered:
    """The deltas of a running request. What the engine has handed over is charged, read or not."""

    def __init__(self, job: Job, reservation: Reservation, timer: StreamTimer) -> None:
        self.job = job
        self._reservation = reservation
        self._timer = timer
        self._generation: Generation | None = None
        self._first: Delta | None = None
        self._unfinished = job.choices
        self._cost: Picodollars | None = None
        self._outcome = ""

    @property
    def counts(self) -> TokenCounts:
        if self._generation is None:
            return TokenCounts(self.job.prompt_tokens)
        return self._generation.counts

    @property
    def cost(self) -> Picodollars:
        """What was charged, or would be if it ended now."""
        if self._cost is not None:
            return self._cost
        return cost(self.job.served.model.price, _tokens(self.counts))

    @property
    def finished(self) -> bool:
        """Whether every choice has ended by itself."""
        return self._unfinished == 0

    async def begin(self, admitted: Admitted | None) -> None:
        """Start the engine and wait for the first delta; the reservation becomes durable meanwhile."""
        if not self._reservation.likely:
            await self._reservation.stands()
        job = self.job
        self._generation = await start(
            job.served.engine, job.request_id, job.parts, job.trace_headers, stream=job.stream
        )
        self._reservation.follow(self._tokens_now)
        if admitted is not None:
            await self._reservation.stands()
            await admitted()
        first = await self._generation.__anext__()
        await self._reservation.stands()
        if job.stream:
            self._timer.first_token()
        self._first = self._note(first)

    def __aiter__(self) -> "Metered":
        return self

    async def __anext__(self) -> Delta:
        if (first := self._first) is not None:
            self._first = None
            return first
        if self._unfinished == 0 or self._generation is None:
            raise StopAsyncIteration
        try:
            delta = await self._generation.__anext__()
        except EngineError:
            # Here, since the error doesn't come by the pipeline again: a stream tells its client and ends well.
            self.settle(Outcome.ENGINE_ERROR)
            raise
        self._timer.token()
        return self._note(delta)

    def _note(self, delta: Delta) -> Delta:
        if delta.finish_reason is not None:
            self._unfinished -= 1
            if self._unfinished == 0:
                self.settle(Outcome.FINISHED)
        return delta

    def _tokens_now(self) -> Tokens:
        return _tokens(self.counts)

    def settle(self, outcome: Outcome) -> None:
        """Charge what was generated, once. Nothing generated and not finished: nothing charged."""
        if self._cost is not None:
            return
        if outcome is Outcome.CLIENT_GONE:
            self._timer.disconnected()
        counts = self.counts
        if counts.completion == 0 and outcome is not Outcome.FINISHED:
            self.void(outcome.value)
            return
        self._outcome = outcome.value
        self._cost = self._reservation.settle(_tokens(counts), outcome)
        self._timer.end(counts, self._cost, outcome.value)

    def void(self, reason: str) -> None:
        """Charge nothing: nothing was delivered."""
        if self._cost is None:
            self._cost = Picodollars(0)
            self._outcome = Outcome.VOID.value
            self._reservation.void(reason)
            self._timer.end(TokenCounts(0), self._cost, self._outcome)

    def report(self) -> dict[str, object]:
        """For the log line."""
        counts = self.counts
        return {
            "prompt_tokens": counts.prompt,
            "cached_tokens": counts.cached,
            "completion_tokens": counts.completion,
            "cost_usd": format_usd(self.cost),
            "first_token_seconds": self._timer.first_token_seconds,
            "outcome": self._outcome,
        }

    async def close(self) -> None:
        """Stop the engine's work on this request, if it still runs."""
        if self._generation is not None:
            await self._generation.aclose()


def check_fits(served: Served, prompt: Prompt, param: str, room: int = 0) -> None:
    """Raises InvalidRequest(context_length_exceeded) unless the context has this much room beside the prompt.

    `param` is the field that the prompt came in.
    """
    if prompt.tokens + room > served.context_length:
        raise InvalidRequest(
            f"The prompt is {prompt.tokens} tokens long, and the context of {served.model.name} holds "
            f"{served.context_length}, prompt and answer together. Shorten the prompt.",
            code="context_length_exceeded",
            param=param,
        )


def fit_to_context(served: Served, prompt: Prompt, wanted: int | None, param: str = "messages") -> int:
    """How many tokens may be generated: what was asked for or the card's default, and no more than there is room.

    `param` is the field that the prompt came in. Raises InvalidRequest(context_length_exceeded) where it leaves no
    room.
    """
    check_fits(served, prompt, param, room=1)
    room = served.context_length - prompt.tokens
    return min(room, served.model.card.default_max_tokens if wanted is None else wanted)


def _tokens(counts: TokenCounts) -> Tokens:
    return Tokens(prompt=counts.prompt, cached=counts.cached, completion=counts.completion)

"""A running request with its meter: every way out of it is charged, once."""

from collections.abc import Awaitable, Callable

from engine.base import Delta, Generation, TokenCounts
from engine.errors import EngineError
from gateway.generations import start
from gateway.jobs import Job
from gateway.metrics import StreamTimer
from pricing.cost import Tokens, cost
from pricing.money import Picodollars, format_usd
from pricing.reservation import Outcome, Reservation

Admitted = Callable[[], Awaitable[None]]


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
        job, trace = self.job, self.job.trace
        trace.begin("generate")
        trace.begin("first_token", "generate")
        headers = trace.headers(job.trace_headers)
        self._generation = await start(job.served.engine, job.request_id, job.parts, headers, stream=job.stream)
        self._reservation.follow(self._tokens_now)
        if admitted is not None:
            await self._reservation.stands()
            await admitted()
        first = await self._generation.__anext__()
        trace.end("first_token")
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

    async def forward(self, take: Callable[[Delta], bool]) -> None:
        """As `Generation.forward`, for what comes after the first delta."""
        if self._unfinished == 0 or self._generation is None:
            return
        timer, note = self._timer, self._note

        def metered(delta: Delta) -> bool:
            timer.token()
            return take(note(delta))

        try:
            await self._generation.forward(metered)
        except EngineError:
            self.settle(Outcome.ENGINE_ERROR)
            raise

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
        self._begin_settling()
        self._outcome = outcome.value
        self._cost = self._reservation.settle(_tokens(counts), outcome)
        self._timer.end(counts, self._cost, outcome.value)
        self.job.trace.end("settle")

    def void(self, reason: str) -> None:
        """Charge nothing: nothing was delivered."""
        if self._cost is None:
            self._begin_settling()
            self._cost = Picodollars(0)
            self._outcome = Outcome.VOID.value
            self._reservation.void(reason)
            self._timer.end(TokenCounts(0), self._cost, self._outcome)
            self.job.trace.end("settle")

    def _begin_settling(self) -> None:
        trace = self.job.trace
        trace.end("first_token")
        trace.end("generate")
        trace.begin("settle")

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


def _tokens(counts: TokenCounts) -> Tokens:
    return Tokens(prompt=counts.prompt, cached=counts.cached, completion=counts.completion)

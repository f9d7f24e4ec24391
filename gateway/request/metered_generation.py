"""The deltas of a running request, and how many of its tokens its client was sent."""

import time
from collections.abc import Awaitable, Callable

from engine.base import Delta, Generation, TokenCounts
from gateway.request.generations import Handling, start
from gateway.request.jobs import Job
from gateway.request.turns import Turn
from gateway.telemetry.metrics import StreamTimer
from pricing.charging import Ending, charge
from pricing.cost import Tokens
from pricing.money import Picodollars
from pricing.reservation import Outcome, Reservation

Admitted = Callable[[], Awaitable[None]]


class Metered:
    """Read by one handler. `counts` are the engine's, and cover what it has handed over, read or not.

    A delta counts as sent once the reader comes back for the next one. After a silence of more than
    `Reservation.silence_max` another process may have taken this one for dead: the ledger is asked before more is
    handed out.
    """

    def __init__(self, job: Job, reservation: Reservation, timer: StreamTimer, turn: Turn) -> None:
        self.job = job
        self._turn = turn
        self._reservation = reservation
        self._timer = timer
        self._silence_max = reservation.silence_max
        self._generation: Generation | None = None
        self._early: Delta | None = None  # here before it was asked for
        self._given: Delta | None = None  # at the reader
        self._doubtful = False  # whether to ask the ledger before the next one
        self._sent = [0] * job.choices
        self._unfinished = job.choices
        self.kept = not job.whole  # whether its answer is durable, where that must be before it is charged

    @property
    def counts(self) -> TokenCounts:
        if self._generation is None:
            return TokenCounts(self.job.prompt_tokens)
        return self._generation.counts

    @property
    def tokens(self) -> Tokens:
        """`counts`, as the ledger takes them."""
        counts = self.counts
        return Tokens(prompt=counts.prompt, cached=counts.cached, completion=counts.completion)

    @property
    def cost(self) -> Picodollars:
        """What it costs if it is finished with what there is now."""
        return charge(self.job.price, self.tokens, Ending(Outcome.FINISHED))

    @property
    def first_token_seconds(self) -> float | None:
        """When the first token of a stream came, from the request's arrival."""
        return self._timer.first_token_seconds

    @property
    def finished(self) -> bool:
        """Whether every choice has ended by itself."""
        return self._unfinished == 0

    def ending(self, outcome: Outcome) -> Ending:
        """How it ends, where it ends now."""
        early = outcome is Outcome.CLIENT_GONE and self._generation is not None and self.counts.completion == 0
        return Ending(
            outcome,
            sent=sum(self._sent) if self.job.stream else 0,
            room=self.job.served.engine.has_room if early else None,
        )

    async def begin(self, admitted: Admitted | None) -> None:
        """Start the engine and wait for the first delta; the reservation becomes durable meanwhile."""
        if not self._reservation.likely:
            await self._reservation.stands()
        job, trace = self.job, self.job.trace
        trace.begin("generate")
        trace.begin("first_token", "generate")
        headers, turn = trace.headers(job.trace_headers), self._turn
        adapter = job.served.model.adapter
        handling = Handling(headers, job.stream, job.cache_salt, turn.priority, adapter, turn.began)
        self._generation = await start(job.served.engine, job.request_id, job.parts, handling)
        if not job.whole:
            self._reservation.follow(lambda: self.tokens)
        if admitted is not None:
            await self._reservation.stands()
            await admitted()
        self._early = await self._generation.__anext__()
        trace.end("first_token")
        await self._reservation.stands()
        if time.perf_counter() - job.arrived > self._silence_max:
            await self._reservation.confirm()
        if job.stream:
            self._timer.first_token()

    def __aiter__(self) -> "Metered":
        return self

    async def __anext__(self) -> Delta:
        self._count_sent()
        delta, self._early = self._early, None
        if delta is None:
            if self._unfinished == 0 or self._generation is None:
                raise StopAsyncIteration
            delta = await self._generation.__anext__()
            self._doubtful = self._timer.token() > self._silence_max
        if self._doubtful:
            self._doubtful = False
            await self._reservation.confirm()
        if delta.finish_reason is not None:
            self._choice_ended()
        self._given = delta
        return delta

    async def forward(self, take: Callable[[Delta], bool]) -> None:
        """As `Generation.forward`, for what comes after the first delta."""
        self._count_sent()
        if self._unfinished == 0 or self._generation is None:
            return
        token, silence_max, sent = self._timer.token, self._silence_max, self._sent

        def metered(delta: Delta) -> bool:
            if token() > silence_max:
                self._early, self._doubtful = delta, True
                return False
            if delta.finish_reason is not None:
                self._choice_ended()
            more = take(delta)
            sent[delta.index] = delta.completion_tokens
            return more

        await self._generation.forward(metered)

    def _choice_ended(self) -> None:
        self._unfinished -= 1
        if self._unfinished == 0:
            self.job.trace.end("generate")

    def _count_sent(self) -> None:
        if (given := self._given) is not None:
            self._sent[given.index] = given.completion_tokens
            self._given = None

    async def close(self) -> None:
        """Stop the engine's work on this request, if it still runs."""
        if self._generation is not None:
            await self._generation.aclose()

"""`Idempotency-Key`: the same request, sent again, is charged once and gets the same answer.

A key belongs to the API key that sent it and to one path and body. What a repetition meets:

| the first request                                                | the repetition gets                             |
|------------------------------------------------------------------|-------------------------------------------------|
| ended with a 2xx                                                  | the same status, content type and bytes         |
| runs in this process                                              | the same answer, as it comes                    |
| runs in another process                                           | 409 `idempotency_in_progress`, with retry-after |
| had another path or body                                          | 409 `idempotency_conflict`                      |
| was refused, or ended uncharged (an error, a crash)               | a run of its own                                |
| was charged, and has no whole answer (a crash, a cut, too large)  | 409 `idempotency_answer_lost`                   |

So no key is ever charged twice. A request with a key runs on to its end when its client goes away, since its answer may
be asked for again; only one whose answer has grown too large to be kept is stopped, as requests without a key are.
Whether a process of which there is no sign still runs a request, the ledger knows: it settles for the dead.
"""

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import Send

from gateway.errors import AnswerLost, Conflict, GatewayError, InvalidParameter, StillRunning, Unavailable
from gateway.errors.wording import show
from gateway.idempotency.recording import Recording
from gateway.idempotency.store import Answer, Claim, IdempotencyStore
from pricing.clock import Clock, system_clock
from pricing.ledger import Ledger
from pricing.money import format_usd
from pricing.usage import Usage
from storage.errors import LedgerUnavailable

log = logging.getLogger("farebox.idempotency")

HEADER = "idempotency-key"
VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")
RETRY_AFTER_SECONDS = 2
# A claim that the ledger doesn't know yet: its process is about to reserve, or died before it could.
RESERVING_MS_MAX = 60_000
# A settled request whose answer isn't stored yet: its process is about to, or died in between.
STORING_MS_MAX = 10_000
PURGE_SECONDS = 600
STORE_TRIES = 5
CLOSE_SECONDS = 5


class Replayed(Exception):
    """Raised where a request would be run that has an answer already. Not an error: its answer is played."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


@dataclass(slots=True)
class Attempt:
    """One request with a key, running here. `request_id` from its claim on; `charged` as soon as it costs money."""

    key_id: int
    name: str
    digest: bytes
    recording: Recording
    idempotency: "Idempotency"
    request_id: str | None = None
    charged: bool = False
    kept: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def failed(self) -> bool:
        """Whether it has ended without an answer to give again."""
        return self.recording.ended.is_set() and self.recording.answer is None

    async def claim(self, request_id: str) -> None:
        """Before generating. Raises Replayed, Conflict, LedgerUnavailable."""
        await self.idempotency.claim(self, request_id)


class Idempotency:
    """The attempts of this process, and the answers in the database."""

    def __init__(
        self,
        store: IdempotencyStore,
        usage: Usage,
        ledger: Ledger,
        *,
        life_ms: int,
        bytes_max: int,
        clock: Clock = system_clock,
    ) -> None:
        self._store = store
        self._usage = usage
        self._ledger = ledger
        self._life_ms = life_ms
        self._bytes_max = bytes_max
        self._clock = clock
        self._running: dict[tuple[int, str], Attempt] = {}
        self._works: set[asyncio.Task[None]] = set()
        self._purging: asyncio.Task[None] | None = None

    async def answer(
        self, key_id: int, name: str, digest: bytes, handle: Callable[[Attempt], Awaitable[None]], send: Send
    ) -> None:
        """Answer through `send`: run `handle`, or follow the attempt that runs already. Cancelled when the client is
        gone; the handler goes on. Raises what the handler raised, and Conflict."""
        while (attempt := self._running.get((key_id, name))) is not None:
            _require_same(attempt.digest, digest)
            if not attempt.failed:
                await attempt.recording.play(send, again=True)
                return
            await attempt.kept.wait()  # a retry after a failure must not be given the same failure
        work: asyncio.Task[None] | None = None

        def abandoned() -> None:
            if work is not None:
                work.cancel()

        attempt = Attempt(key_id, name, digest, Recording(self._bytes_max, abandoned), self)
        self._running[key_id, name] = attempt
        # The first follower must be there before the handler begins, or the handler would seem to be abandoned.
        playing = asyncio.create_task(attempt.recording.play(send, again=False))
        work = asyncio.create_task(self._work(attempt, handle))
        self._works.add(work)
        work.add_done_callback(self._works.discard)
        try:
            await asyncio.shield(playing)
        except asyncio.CancelledError:
            playing.cancel()
            with contextlib.suppress(asyncio.CancelledError, GatewayError):
                await playing
            raise
        finally:
            # The log line of this request is written when we return: with what it came to.
            await attempt.recording.ended.wait()

    async def claim(self, attempt: Attempt, request_id: str) -> None:
        """See `Attempt.claim`."""
        there = await self._store.claim(attempt.key_id, attempt.name, attempt.digest, request_id, life_ms=self._life_ms)
        if there is not None:
            _require_same(there.body_hash, attempt.digest)
            if there.answer is not None:
                raise Replayed(there.answer)
            await self._require_uncharged(there)
            if not await self._store.take_over(there, attempt.digest, request_id, life_ms=self._life_ms):
                raise _still_running()
        attempt.request_id = request_id

    async def open(self) -> None:
        """Begin to remove expired answers."""
        self._purging = asyncio.create_task(self._keep_purging(), name="idempotency purge")

    async def close(self) -> None:
        """Wait a little for answers that are being stored."""
        if self._purging is not None:
            self._purging.cancel()
        if self._works:
            await asyncio.wait(set(self._works), timeout=CLOSE_SECONDS)

    async def _work(self, attempt: Attempt, handle: Callable[[Attempt], Awaitable[None]]) -> None:
        error: Exception | None = None
        try:
            await handle(attempt)
        except Replayed as replayed:
            attempt.recording.fill(replayed.answer)
        except asyncio.CancelledError:
            error = Unavailable("The request was cut off.", code="shutting_down", retry_after_seconds=5)
        except Exception as raised:  # each follower raises it where its own context turns it into an answer
            error = raised
        attempt.recording.end(error)
        try:
            await self._keep(attempt)
        finally:
            del self._running[attempt.key_id, attempt.name]
            attempt.kept.set()

    async def _keep(self, attempt: Attempt) -> None:
        """Write down how it ended. While the database is away the answer can be had from this process only."""
        if attempt.request_id is None:
            return
        place = (attempt.key_id, attempt.name, attempt.request_id)
        for pause in range(STORE_TRIES):
            try:
                if (answer := attempt.recording.answer) is not None:
                    await self._store.finish(*place, answer, life_ms=self._life_ms)
                elif attempt.charged:
                    await self._store.lose(*place)
                else:
                    await self._store.release(*place)
            except LedgerUnavailable:
                await asyncio.sleep(pause)
            else:
                return
        log.error("the answer to request %s could not be stored; it can't be given again", attempt.request_id)

    async def _require_uncharged(self, claim: Claim) -> None:
        """Raises StillRunning while its process may live, AnswerLost where it was charged."""
        await self._ledger.settled()  # the first request may have been ours, a moment ago
        record = await self._usage.request(claim.request_id, key_id=claim.key_id)
        now = self._clock()
        if record is None:
            if claim.state == "running" and now - claim.created_at < RESERVING_MS_MAX:
                raise _still_running()
            return
        if record.settled_at is None or (claim.state == "running" and now - record.settled_at < STORING_MS_MAX):
            raise _still_running()
        if record.cost > 0:
            raise AnswerLost(
                f"The first request with this Idempotency-Key, {claim.request_id}, was cut off after "
                f"{record.tokens.completion} tokens (${format_usd(record.cost)} charged); its answer can't be given "
                "again."
            )

    async def _keep_purging(self) -> None:
        while True:
            with contextlib.suppress(LedgerUnavailable):
                await self._store.purge()
            await asyncio.sleep(PURGE_SECONDS)


def idempotency_key(headers: Headers) -> str | None:
    """The header's value, if it is sent. Raises InvalidParameter."""
    name = headers.get(HEADER)
    if name is not None and VISIBLE.fullmatch(name) is None:
        raise InvalidParameter(
            f"The header Idempotency-Key must be 1 to 255 visible ASCII characters; got {show(name)}.",
            param="Idempotency-Key",
        )
    return name


def digest_of(path: str, body: bytes) -> bytes:
    """What must be the same for a request to count as sent again: the path, and the body byte for byte (unzipped)."""
    return hashlib.sha256(path.encode() + b"\0" + body).digest()


def _require_same(first: bytes, digest: bytes) -> None:
    if first != digest:
        raise Conflict(
            "This Idempotency-Key was used for another request (path or body differ). Use a new key for each request.",
            code="idempotency_conflict",
        )


def _still_running() -> StillRunning:
    return StillRunning(
        "The first request with this Idempotency-Key is still running. Try again in a moment.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )

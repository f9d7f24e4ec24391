"""One generating request on the ASGI level: what its handler gets, and how it answers.

Starlette's Request and StreamingResponse are left out on purpose: a disconnect must cancel the handler wherever it is,
and a streamed token must cost no more than one write. `gateway.routes.endpoint` makes it and tells what ends it early.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import Send

from engine.base import Delta
from gateway.errors import from_exception
from gateway.errors.shapes import error_event, ping_event
from gateway.idempotency.keys import Attempt
from gateway.idempotency.recording import PING
from gateway.limits.admission import Admission
from gateway.models.fleet import Served
from gateway.request.client import FLUSH_SECONDS
from gateway.request.context import RequestContext
from gateway.request.generations import Part
from gateway.request.jobs import Job
from gateway.request.large_bodies import Turn
from gateway.request.metered_generation import Admitted, Metered
from gateway.request.pings import Pings
from gateway.settings import Settings
from gateway.telemetry.receipt import Receipt
from pricing.keys import Key
from pricing.tier import Tier

TRACE_HEADERS = ("traceparent", "tracestate")
GOODBYE_SECONDS = 1.0  # for a client to take the event that ends its stream, where we end it early
ENDED_EARLY = ("deadline_exceeded", "interrupted", "shutting_down")
EVENT_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",  # nginx would hold the tokens back
}


class Webhooks(Protocol):
    """Who delivers an answer to a URL."""

    async def start(self, job: Job, url: str, result: Callable[[Metered], Awaitable[Mapping[str, object]]]) -> None:
        """Run the job; its answer goes to the URL. Returns once it is sure to."""


class Runs(Protocol):
    """Who runs jobs: `gateway.request.pipeline.Pipeline`, or what stands in front of it."""

    def run(self, job: Job, admitted: Admitted | None = None) -> AbstractAsyncContextManager[Metered]: ...


class Events(Protocol):
    """The format of a streamed answer: deltas in, server-sent events out."""

    def feed(self, delta: Delta) -> bytes:
        """The events of one delta; nothing where it has nothing to tell yet."""

    def end(self) -> bytes:
        """What comes after the last one."""


@dataclass(slots=True)
class Exchange:
    """A request whose body has arrived and whose key is valid.

    `write` is `gateway.request.client.Client.write`, where what is written may go straight there; `streaming` says
    whether an answer of events has begun, `answering` whether it has more than pings.
    """

    settings: Settings
    pipeline: Runs
    webhooks: Webhooks
    context: RequestContext
    key: Key
    body: bytes
    path_params: Mapping[str, str]
    headers: Headers
    send: Send
    admission: Admission
    turn: Turn
    write: Callable[[bytes], bool] | None
    tier: Tier | None = None  # None until it is known what was asked for
    attempt: Attempt | None = None  # with an Idempotency-Key
    streaming: bool = False
    answering: bool = False
    pings: Pings | None = None

    def keep_alive(self) -> None:
        """From now on the answer, which is to be one of events, isn't silent for long. Until `quiet`."""
        if self.settings.stream_ping_seconds > 0:
            self.pings = Pings(self.settings.stream_ping_seconds, self._ping)

    async def quiet(self) -> None:
        """No more pings. Afterwards `streaming` says whether one has begun the answer."""
        if (pings := self.pings) is not None:
            self.pings = None
            try:
                await pings.settled()
            finally:
                pings.stop()

    async def _ping(self) -> None:
        ping = ping_event(self.context.route)
        if not self.streaming:
            await self._begin_events()
        if self.write is not None:
            self.write(ping)
        else:
            await self.send({"type": "http.response.body", "body": ping, "more_body": True, PING: True})

    def job(self, request_id: str, served: Served, parts: Sequence[Part], *, stream: bool, user: str | None) -> Job:
        """This caller's work for the pipeline, under the gateway's own `request_id`; the log line gets its receipt."""
        self.turn.done()
        self.context.ignore([name for part in parts for name in part.prompt.left_out])
        self.context.fields["id"] = request_id
        self.context.trace.end("render")
        return Job(
            request_id=request_id,
            key=self.key,
            served=served,
            route=self.context.route,
            parts=tuple(parts),
            arrived=self.context.arrived,
            admission=self.admission,
            tier=self.tier or Tier.DEFAULT,
            stream=stream,
            user=user,
            attempt=self.attempt,
            settled=self._settled,
            trace_headers={name: self.headers[name] for name in TRACE_HEADERS if name in self.headers},
            trace=self.context.trace,
        )

    def _settled(self, receipt: Receipt) -> None:
        self.context.fields |= receipt.fields()

    async def respond(self, payload: Mapping[str, object] | bytes, status: int = 200) -> None:
        """Answer with a JSON document, or with its bytes."""
        body = payload
        if not isinstance(body, bytes):
            body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        await self._start(status, {"content-type": "application/json", "content-length": str(len(body))})
        await self._end(body)

    async def stream(self, metered: Metered, events: Events) -> None:
        """Answer with server-sent events.

        Where it can be, an event is written in the turn of the event loop in which the engine made its token. A client
        that reads too slowly is waited for here, while its tokens merge into one delta.
        """
        await self._start_events()
        write, feed, pings = self.write, events.feed, self.pings

        def take(delta: Delta) -> bool:
            event = feed(delta)
            if pings is not None and event:
                pings.last = monotonic()
            return write is None or write(event)

        async for delta in metered:
            if write is None:
                if event := feed(delta):
                    await self._send_event(event)
            elif take(delta):
                await metered.forward(take)
            else:
                await self._send_event(b"")  # waits for the client
        await self.quiet()
        await self._end(events.end())

    async def stream_from(self, events: AsyncIterator[bytes]) -> None:
        """Answer with server-sent events that take more than a delta to make."""
        await self._start_events()
        async for event in events:
            if event:
                await self._send_event(event)
        await self.quiet()
        await self._end(b"")

    async def end_with(self, error: Exception) -> None:
        """End a stream with the event of an error. A client that doesn't read isn't waited for long.

        Where we end it early, or have sent pings only, an answer to an Idempotency-Key must not count as whole: then
        its end isn't sent, and the error is raised again.
        """
        known = from_exception(error)
        early = known.code in ENDED_EARLY
        retried = self.attempt is not None and (early or not self.answering)
        self.context.fail(known.code, error)
        event = error_event(known, self.context.route, self.context.id, self.context.next_number())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS if early else FLUSH_SECONDS):
                await self._send_event(event)
                if not retried:
                    await self._end(b"")
        if retried:
            raise known from error

    async def _start_events(self) -> None:
        if self.pings is not None:
            await self.pings.settled()
        if not self.streaming:
            await self._begin_events()
        self.answering = True

    async def _begin_events(self) -> None:
        await self._start(200, EVENT_STREAM_HEADERS)
        self.streaming = True

    async def _send_event(self, event: bytes) -> None:
        if self.pings is not None:
            self.pings.last = monotonic()
        await self.send({"type": "http.response.body", "body": event, "more_body": True})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})

    async def _end(self, body: bytes) -> None:
        await self.send({"type": "http.response.body", "body": body})

"""One generating request on the ASGI level: its body comes in whole, its client may go away, its answer goes out.

Handlers get an `Exchange` and answer through it. Starlette's Request and StreamingResponse are left out on purpose:
a disconnect must cancel the handler wherever it is, and a streamed token must cost no more than one write.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from engine.base import WORKS_FOR, Delta, Prompt, Sampling
from gateway.bodies import read_body
from gateway.connections import CLIENT, Client
from gateway.context import RequestContext
from gateway.error_shapes import error_event
from gateway.errors import GatewayError, from_exception, shutting_down
from gateway.fleet import Served
from gateway.generations import Part
from gateway.idempotency import Attempt, digest_of, idempotency_key
from gateway.jobs import Job
from gateway.limits import Admission
from gateway.metered import Metered
from gateway.state import Gateway
from pricing.keys import Key
from pricing.money import Picodollars, format_usd

NOTHING = format_usd(Picodollars(0))
TRACE_HEADERS = ("traceparent", "tracestate")
GOODBYE_SECONDS = 1.0  # for a client to take the event that ends its stream early
EVENT_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",  # nginx would hold the tokens back
}


class Events(Protocol):
    """The format of a streamed answer: deltas in, server-sent events out."""

    def feed(self, delta: Delta) -> bytes:
        """The events of one delta; nothing where it has nothing to tell yet."""

    def end(self) -> bytes:
        """What comes after the last one."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request whose body has arrived and whose key is valid.

    `write` is `gateway.connections.Client.write`, where what is written may go straight there.
    """

    gateway: Gateway
    context: RequestContext
    key: Key
    body: bytes
    path_params: Mapping[str, str]
    headers: Headers
    send: Send
    admission: Admission
    write: Callable[[bytes], bool] | None
    attempt: Attempt | None = None  # with an Idempotency-Key

    async def admit(self, served: Served) -> None:
        """Count the request against its key's limits: when it has been checked, before it is rendered.

        Raises RateLimited.
        """
        WORKS_FOR.set(str(self.key.id))
        await self.admission.enter(served.model.name)
        self.context.trace.begin("render")

    def generate(
        self,
        request_id: str,
        served: Served,
        prompt: Prompt,
        sampling: Sampling,
        *,
        stream: bool,
        user: str | None,
    ) -> AbstractAsyncContextManager[Metered]:
        """Run the work that this request asks for through the pipeline; what it came to goes on the log line."""
        return self.run(self.job(request_id, served, [Part(prompt, sampling)], stream=stream, user=user))

    def job(self, request_id: str, served: Served, parts: Sequence[Part], *, stream: bool, user: str | None) -> Job:
        """This caller's work for the pipeline, under the gateway's own `request_id`."""
        self.context.fields["id"] = request_id
        self.context.trace.end("render")
        return Job(
            request_id=request_id,
            key=self.key,
            served=served,
            route=self.context.route,
            parts=tuple(parts),
            arrived=self.context.arrived,
            stream=stream,
            user=user,
            trace_headers={name: self.headers[name] for name in TRACE_HEADERS if name in self.headers},
            trace=self.context.trace,
        )

    @asynccontextmanager
    async def run(self, job: Job) -> AsyncIterator[Metered]:
        """`generate` for a job made before. Raises RateLimited and what the pipeline raises."""
        await self.prepare(job)
        report: dict[str, object] = {}
        try:
            async with self.gateway.pipeline.run(job, report) as metered:
                yield metered
        finally:
            self.context.fields |= report
            if report.get("cost_usd", NOTHING) != NOTHING:
                self.admission.used(int(str(report["prompt_tokens"])) + int(str(report["completion_tokens"])))
                if self.attempt is not None:
                    self.attempt.charged = True

    async def prepare(self, job: Job) -> None:
        """Before the pipeline: the limit of tokens, and the claim on the Idempotency-Key.

        Raises RateLimited, Conflict, and Replayed where the answer is there already.
        """
        await self.admission.take_tokens(job.served.model.name, job.prompt_tokens, job.completion_tokens_max)
        self.admission.used(0)  # until something is charged
        if self.attempt is not None:
            await self.attempt.claim(job.request_id)

    async def respond(self, payload: Mapping[str, object], status: int = 200) -> None:
        """Answer with a JSON document."""
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        await self._start(status, {"content-type": "application/json", "content-length": str(len(body))})
        await self.send({"type": "http.response.body", "body": body})

    async def stream(self, metered: Metered, events: Events) -> None:
        """Answer with server-sent events.

        Where it can be, an event is written in the turn of the event loop in which the engine made its token. A client
        that reads too slowly is waited for here, while its tokens merge into one delta.
        """
        await self._send_events(partial(self._deltas, metered, events))

    async def stream_from(self, events: AsyncIterator[bytes]) -> None:
        """Answer with server-sent events that take more than a delta to make."""
        await self._send_events(partial(self._each, events))

    async def _deltas(self, metered: Metered, events: Events) -> bytes:
        write, feed = self.write, events.feed
        async for delta in metered:
            event = feed(delta)
            if write is None:
                if event:
                    await self._send_event(event)
            elif write(event):
                await metered.forward(lambda delta: write(feed(delta)))
            else:
                await self._send_event(b"")  # waits for the client
        return events.end()

    async def _each(self, events: AsyncIterator[bytes]) -> bytes:
        async for event in events:
            if event:
                await self._send_event(event)
        return b""

    async def _send_events(self, sending: Callable[[], Awaitable[bytes]]) -> None:
        """What `sending` sends, and then what it gives. An error on the way becomes an event: the status is sent."""
        await self._start(200, EVENT_STREAM_HEADERS)
        last = b""
        try:
            last = await sending()
        except asyncio.CancelledError:
            if (ending := self.gateway.pipeline.ending()) is not None:
                await self._end_early(ending)
            raise
        except Exception as error:
            await self._end_with(error)
        await self.send({"type": "http.response.body", "body": last})

    async def _end_early(self, error: GatewayError) -> None:
        """Say why we end the stream. A client that doesn't read isn't waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._end_with(error)
                if self.attempt is None:  # for an Idempotency-Key it must not count as a whole answer
                    await self.send({"type": "http.response.body", "body": b""})

    async def _end_with(self, error: Exception) -> None:
        known = from_exception(error)
        self.context.fail(known.code, error)
        await self._send_event(error_event(known, self.context.route, self.context.id))

    async def _send_event(self, event: bytes) -> None:
        await self.send({"type": "http.response.body", "body": event, "more_body": True})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})


Handler = Callable[[Exchange], Awaitable[None]]


class Generating:
    """The ASGI endpoint around a handler: reads the body, then cancels the handler when the client goes away."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway: Gateway = scope["app"].state.gateway
        headers = Headers(scope=scope)
        context: RequestContext = scope["farebox.context"]
        if gateway.stopping:
            raise shutting_down()
        try:
            body = await read_body(headers, receive, gateway.settings)
        except ClientDisconnect:
            context.client_gone()
            return
        key: Key = scope["farebox.key"]
        admission = gateway.limits.admission(key, context.headers)
        client: Client | None = scope.get(CLIENT)
        path_params, write = scope.get("path_params", {}), client.write if client is not None else None
        exchange = Exchange(gateway, context, key, body, path_params, headers, send, admission, write)
        watch = _Watch(client, receive)
        try:
            await self._answer(exchange, scope["path"])
        except asyncio.CancelledError:
            cut_off = gateway.pipeline.cutting
            if not (cut_off or watch.gone) or watch.task.uncancel() > 0:
                raise
            if cut_off and not context.status:
                raise shutting_down() from None
            if watch.gone:
                context.client_gone()
        except GatewayError:
            if not context.status:
                raise
            # else its event has ended the stream
        finally:
            watch.end()

    async def _answer(self, exchange: Exchange, path: str) -> None:
        name = idempotency_key(exchange.headers)
        if name is None:
            await self._handle(exchange)
            return

        async def record(attempt: Attempt) -> None:
            await self._handle(replace(exchange, send=attempt.recording.send, write=None, attempt=attempt))

        digest = digest_of(path, exchange.body)
        await exchange.gateway.idempotency.answer(exchange.key.id, name, digest, record, exchange.send)

    async def _handle(self, exchange: Exchange) -> None:
        try:
            await self.handler(exchange)
        finally:
            exchange.admission.release()


class _Watch:
    """Cancels the current task when the client goes away. `gone` says that it has; `end` must be called."""

    def __init__(self, client: Client | None, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.gone = False
        self._client = client
        if client is not None:
            client.watch(self._left)
        else:  # another server than ours: ASGI tells by a message
            self._waiting = asyncio.create_task(_disconnected(receive))
            self._waiting.add_done_callback(self._told)

    def _left(self) -> None:
        self.gone = True
        self.task.cancel()

    def _told(self, waiting: "asyncio.Task[None]") -> None:
        if not waiting.cancelled():
            self._left()

    def end(self) -> None:
        if self._client is not None:
            self._client.unwatch(self._left)
        else:
            self._waiting.remove_done_callback(self._told)
            self._waiting.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

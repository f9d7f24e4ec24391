"""Connections: each request is one request, whatever its headers offer, and none is held open for nothing.

uvicorn's own takes what follows an offer to upgrade for the next request, and has no limit on how slowly headers come.
"""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.errors import GatewayError, HeadersTooLarge, InvalidRequest, NotSupported, RequestTimeout
from gateway.process.corked import Corked
from gateway.process.framing import check_head, head_bytes, origin_form, without_offer
from gateway.request.client import CLIENT, FLUSH_SECONDS

HEADER_BYTES_MAX = 64 * 2**10  # the parser itself would take any number
CHUNK_HEAD_BYTES_MAX = 24  # what a chunk may need around its data, without extensions
PIPELINED_MAX = 32  # requests in line behind the one that is being answered
LINGER_SECONDS = 1.0  # in which a client that is refused may still send


class ConnectionClient:
    """Who waits for an answer, past ASGI: what uvicorn's `send` and `receive` do, without a coroutine for each token
    and without a task that waits for the client to go."""

    __slots__ = ("_connection", "_write", "cycle")

    def __init__(self, connection: "Connection", cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self.cycle = cycle
        self._write = cycle.transport.write

    def write(self, data: bytes) -> bool:
        """A piece of the body of an answer that has begun, has no Content-Length and is ended by `send`.

        Returns False where the client reads too slowly: then the next piece is to be sent, which waits for it.
        """
        cycle = self.cycle
        if data and not cycle.disconnected:
            self._write(b"%x\r\n%b\r\n" % (len(data), data) if cycle.chunked_encoding else data)
        return not cycle.flow.write_paused

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` when the connection is lost, at once if it is already. For after the request's body."""
        self.cycle.flow.resume_reading()  # a large body may have paused it, and an end must be read to be seen
        self._connection.watchers.add(gone)
        if self._connection.lost:
            gone()

    def unwatch(self, gone: Callable[[], None]) -> None:
        self._connection.watchers.discard(gone)


class Unchunked:
    """ASGI, for HTTP/1.0, which knows no chunks: an answer whose length isn't known ends with the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client: ConnectionClient = scope[CLIENT]
        cycle, sized = client.cycle, True

        async def send_plainly(message: Message) -> None:
            nonlocal sized
            if message["type"] == "http.response.start":
                sized = any(name.lower() == b"content-length" for name, _ in message["headers"])
                if not sized:
                    cycle.chunked_encoding = False
            elif not sized:
                cycle.expected_content_length = len(message.get("body", b""))  # uvicorn counts it down
            await send(message)

        await self._app(scope, receive, send_plainly)


class Connection(HttpToolsProtocol):
    """One client's connection. It is closed when the headers of a request take longer than `headers_seconds_max`,
    counted from the connection's start or from the request's first byte; later, the body's and the request's own
    limits hold (`gateway.request.exchange`, `gateway.request.pipeline`). Between requests
    uvicorn's limit holds, which bytes that begin no request don't prolong.

    An offer to upgrade is ignored. The parser stops there and takes what follows, the body too, for another protocol;
    so such a request goes through a new parser, without the offer.
    """

    headers_seconds_max: float
    lost = False
    _deadline: asyncio.TimerHandle | None = None  # not None: headers are awaited
    _closing_since: float | None = None
    _head_bytes = 0  # what has come and is no body: of a head, of trailers, of what is around chunks
    _deaf = False  # something was refused, and nothing more is read
    _refusal: GatewayError | None = None  # for when all requests before it are answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.watchers: set[Callable[[], None]] = set()
        self.transport = Corked(transport, self.loop)  # type: ignore[assignment]  # it has what uvicorn uses
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            raised = error.__context__  # by a callback
            known = raised if isinstance(raised, GatewayError) else None
            self._refuse(known or InvalidRequest(f"The request isn't valid HTTP: {error}."))
        else:
            if self._head_bytes > HEADER_BYTES_MAX:
                self._refuse(_too_large())

    def _feed(self, data: bytes) -> None:
        rest = memoryview(data)
        while True:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as offer:
                rest = rest[offer.args[0] :]
            head = without_offer(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
            self.parser.feed_data(head)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        if self._deadline is None:
            self._await_headers()

    def on_headers_complete(self) -> None:
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            raise NotSupported("This is no proxy: CONNECT isn't supported.")
        if self.parser.should_upgrade():
            return  # `_feed` has it parsed again
        check_head(version, self.headers)
        if self._head_bytes > HEADER_BYTES_MAX < head_bytes(self.url, self.headers):
            raise _too_large()
        if len(self.pipeline) >= PIPELINED_MAX:
            raise InvalidRequest(f"More than {PIPELINED_MAX} requests were sent without waiting for their answers.")
        if not self.url.startswith(b"/"):
            self.url = origin_form(method, self.url)
        if version == "1.0":
            self.app = Unchunked(self.app)
            self.expect_100_continue = False  # RFC 9110 section 10.1.1
        super().on_headers_complete()
        self._headers_came()
        self._head_bytes = 0
        self.headers = []  # trailers come into this one, and are no headers
        if self.cycle is not None and self.cycle.scope is self.scope:  # else it is refused, or no request of ours
            cast(dict[str, Any], self.scope)[CLIENT] = ConnectionClient(self, self.cycle)

    def on_body(self, body: bytes) -> None:
        self._head_bytes = max(0, self._head_bytes - len(body) - CHUNK_HEAD_BYTES_MAX)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._head_bytes = 0
            super().on_message_complete()

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if last and self._refusal is not None:
            self._end_with(self._refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        self.lost = True
        super().connection_lost(exc)
        for gone in tuple(self.watchers):
            gone()

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def abort_if_stuck(self, now: float) -> None:
        """Drop a connection that was to be closed long ago: its client doesn't read what is left. `now` as
        `loop.time()`."""
        if self._closing_since is None and self.transport.is_closing():
            self._closing_since = now
        if self._closing_since is not None and now - self._closing_since > FLUSH_SECONDS:
            self.transport.abort()

    def _await_headers(self) -> None:
        self._deadline = self.loop.call_later(self.headers_seconds_max, self._too_slow)

    def _headers_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self.transport.is_closing():
            return
        if self.busy:  # they are of a second request, sent while the first is being answered, and may wait for us
            self._await_headers()
            return
        self._refuse(RequestTimeout(f"The headers took longer than the {self.headers_seconds_max:g} seconds allowed."))

    def _refuse(self, error: GatewayError) -> None:
        """Read no more, answer with it and close, but not before what was asked earlier is answered."""
        in_head = self._deadline is not None
        self._headers_came()
        self._deaf = True
        if in_head and self.busy:
            self._refusal = error
        elif in_head or not self.cycle.response_started:
            if not self.pipeline:  # else it is the body of one in line, whose handler will wait for it in vain
                self._end_with(error)
        else:
            self.transport.close()  # that request has its answer, and can't get another

    def _end_with(self, error: GatewayError) -> None:
        """RFC 9112 section 9.6: closed at once, a connection on which the client still sends is reset, and the answer
        may be lost with it."""
        if self.transport.is_closing():
            return
        if self.cycle is not None:
            self.cycle.disconnected = True  # whoever waits for the rest of a body that can't be read
            self.cycle.message_event.set()
        self.transport.write(_answer(error))
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


def connection_class(headers_seconds_max: float) -> type[Connection]:
    """uvicorn makes connections from a class; this one has the limit in it."""

    class LimitedConnection(Connection):
        pass

    LimitedConnection.headers_seconds_max = headers_seconds_max
    return LimitedConnection


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"The headers are larger than the {HEADER_BYTES_MAX} bytes that are allowed.")


def _answer(error: GatewayError) -> bytes:
    body = json.dumps(error.body()).encode()
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode(),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
    ]
    return b"\r\n".join([*lines, b"", body])

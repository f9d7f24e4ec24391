"""Connections that can't be held open for nothing: uvicorn's own has no limit on how slowly headers come."""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.errors import GatewayError, HeadersTooLarge, InvalidRequest, RequestTimeout

HEADER_BYTES_MAX = 64 * 2**10  # the parser itself would take any number
CLIENT = "farebox.client"  # in a request's scope: its Client
FLUSH_SECONDS = 10.0  # for a client to take the rest of what was written, once a connection is to be closed


class Corked:
    """A transport on which everything that is written in one turn of the event loop leaves in one system call.

    uvicorn writes the headers, each event and the end of an answer one by one, and a short answer has all of them in
    one turn. Each call may wake the client up, which costs more than what it sends.
    """

    __slots__ = ("_call_soon", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        parts = self._parts
        if parts:
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
            parts.clear()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._parts.clear()
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)


class Client:
    """Who waits for an answer, past ASGI: what uvicorn's `send` and `receive` do, without a coroutine for each token
    and without a task that waits for the client to go."""

    __slots__ = ("_connection", "_cycle", "_write")

    def __init__(self, connection: "Connection", cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle
        self._write = cycle.transport.write

    def write(self, data: bytes) -> bool:
        """A piece of the body of an answer that has begun, has no Content-Length and is ended by `send`.

        Returns False where the client reads too slowly: then the next piece is to be sent, which waits for it.
        """
        cycle = self._cycle
        if data and not cycle.disconnected:
            self._write(b"%x\r\n%b\r\n" % (len(data), data) if cycle.chunked_encoding else data)
        return not cycle.flow.write_paused

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` when the connection is lost, at once if it is already. For after the request's body."""
        self._cycle.flow.resume_reading()  # a large body may have paused it, and an end must be read to be seen
        self._connection.watchers.add(gone)
        if self._connection.lost:
            gone()

    def unwatch(self, gone: Callable[[], None]) -> None:
        self._connection.watchers.discard(gone)


class Connection(HttpToolsProtocol):
    """One client's connection. It is closed when the headers of a request take longer than `headers_seconds_max`,
    counted from the connection's start or from the request's first byte; later, the body's and the request's own
    limits hold (`gateway.exchange`, `gateway.pipeline`)."""

    headers_seconds_max: float
    lost = False
    _deadline: asyncio.TimerHandle | None = None
    _closing_since: float | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.watchers: set[Callable[[], None]] = set()
        self.transport = Corked(transport, self.loop)  # type: ignore[assignment]  # it has what uvicorn uses
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        self._header_bytes += len(data)
        super().data_received(data)
        if self._deadline is None:
            self._header_bytes = 0  # there are no headers to come, or not yet
        elif self._header_bytes > HEADER_BYTES_MAX:
            self._refuse(HeadersTooLarge(f"The headers are larger than the {HEADER_BYTES_MAX} bytes that are allowed."))

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what isn't HTTP, in our shape."""
        self._refuse(InvalidRequest(msg))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._deadline is None:
            self._await_headers()

    def on_headers_complete(self) -> None:
        self._headers_came()
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:  # else it is refused, or no request of ours
            cast(dict[str, Any], self.scope)[CLIENT] = Client(self, self.cycle)

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
        self._deadline = None
        if self.busy or self.transport.is_closing():
            return  # the headers are of a second request, sent while the first is being answered
        self._refuse(RequestTimeout(f"The headers took longer than the {self.headers_seconds_max:g} seconds allowed."))

    def _refuse(self, error: GatewayError) -> None:
        if not self.transport.is_closing():
            self.transport.write(_answer(error))
            self.transport.close()


def connection_class(headers_seconds_max: float) -> type[Connection]:
    """uvicorn makes connections from a class; this one has the limit in it."""

    class LimitedConnection(Connection):
        pass

    LimitedConnection.headers_seconds_max = headers_seconds_max
    return LimitedConnection


def _answer(error: GatewayError) -> bytes:
    body = json.dumps(error.body()).encode()
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode(),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
    ]
    return b"\r\n".join([*lines, b"", body])

"""Fewer system calls: what is written in one turn of the event loop leaves together."""

import asyncio
from typing import Any


class Corked:
    """A transport on which everything that is written in one turn of the event loop leaves in one system call.

    uvicorn writes the headers, each event and the end of an answer one by one, and a short answer has all of them in
    one turn. Each call may wake the client up, which costs more than what it sends (`bench/corked.py`).
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

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._parts.clear()
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)

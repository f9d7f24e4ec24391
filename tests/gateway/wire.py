"""HTTP as bytes on a socket: for requests that no client would send, and answers as they really come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.gateway.conftest import GatewayServer

BOUND = 10  # seconds for what should come at once
PAUSE = 0.05  # between two segments, so that the server reads them one by one
CANARY = b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-request-id: canary\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """One answer, its body without the framing. `raw` is its head as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes


class Wire:
    """A connection as it is, without a client that behaves."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *segments: bytes) -> None:
        """Each by itself, with a pause in between."""
        for number, segment in enumerate(segments):
            if number:
                await asyncio.sleep(PAUSE)
            self.writer.write(segment)
            await self.writer.drain()

    async def answer(self, method: str = "GET") -> Answer | None:
        """The next answer; None where the connection has ended instead."""
        async with asyncio.timeout(BOUND):
            try:
                raw = await self.reader.readuntil(b"\r\n\r\n")
                head, *lines = raw.decode("latin-1").strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                status = int(head.split()[1])
                return Answer(status, headers, await self._body(headers, method, status), raw)
            except (asyncio.IncompleteReadError, ConnectionError):
                return None

    async def _body(self, headers: dict[str, str], method: str, status: int) -> bytes:
        if method == "HEAD" or status < 200 or status in (204, 304):
            return b""
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readuntil(b"\r\n")
        return body

    async def open(self) -> bool:
        """Whether the next answer is the one to a request sent now, and so nothing of before is left."""
        try:
            await self.send(CANARY)
        except ConnectionError:
            return False
        found = await self.answer()
        assert found is None or found.headers.get("x-request-id") == "canary", f"one answer too many: {found.raw!r}"
        return found is not None


@asynccontextmanager
async def wire(server: GatewayServer) -> AsyncIterator[Wire]:
    """A new connection to the gateway."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()

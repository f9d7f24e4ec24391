"""Clients that take their time: with their headers, their body, their next request, their reading, and the whole."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from engine.script import HANG, RequestScript, Script, emit
from gateway.process.connections import Connection
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers

WORD = "x" * 5000  # 20 MB in all: more than the kernel takes for a client
SCRIPT = Script(
    requests=(
        RequestScript((emit("one two three"), HANG), match="please hang"),
        RequestScript((emit(f" {WORD}" * 4000),), match="flood"),
        RequestScript((emit("ok"),)),
    )
)
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
BOUND = 10  # seconds: far more than any limit set here, far less than the defaults


def chat(text: str, **more: object) -> bytes:
    return json.dumps({"model": DEMO, "messages": [{"role": "user", "content": text}], **more}).encode()


def request(server: GatewayServer, body: bytes) -> bytes:
    return HEAD + f"authorization: Bearer {server.secret}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Client:
    """A connection as it is, without a client that behaves."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> tuple[int, bytes]:
        """Status and body of all that comes until the server closes."""
        raw = await asyncio.wait_for(self.reader.read(), BOUND)
        head, _, body = raw.partition(b"\r\n\r\n")
        return (int(head.split()[1]) if head else 0), body


@asynccontextmanager
async def connect(server: GatewayServer) -> AsyncIterator[Client]:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # or the kernel reads for a client that doesn't
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def no_connections(server: GatewayServer) -> None:
    async with asyncio.timeout(BOUND):
        while server.http.server_state.connections:
            await asyncio.sleep(0.02)


async def data_lines(answer: httpx.Response) -> list[str]:
    """The events until the end, or until the server closed without one."""
    lines = []
    with contextlib.suppress(httpx.RemoteProtocolError):
        async for line in answer.aiter_lines():
            if line:
                lines.append(line)
    return lines


@pytest.mark.parametrize("sent", [b"", b"GET", HEAD])
async def test_headers_that_never_end_get_a_408(gateway_server: GatewayServers, sent: bytes) -> None:
    async with gateway_server(headers_timeout_seconds=0.3) as server, connect(server) as client:
        await client.send(sent)
        status, body = await client.rest()
        assert (status, json.loads(body)["error"]["code"]) == (408, "request_timeout")
        await no_connections(server)


async def test_headers_that_dribble_get_a_408_though_bytes_keep_coming(gateway_server: GatewayServers) -> None:
    """What is called a slowloris: each byte comes soon, the end never does."""
    async with gateway_server(headers_timeout_seconds=0.5, idle_timeout_seconds=1) as server, connect(server) as client:
        await client.send(request(server, chat("hi")))  # the guard is there for later requests of a connection too
        await client.reader.readuntil(b"\r\n\r\n")
        await client.send(HEAD + b"x-slow: ")
        closed = asyncio.create_task(client.reader.read())
        async with asyncio.timeout(BOUND):
            while not closed.done():
                with contextlib.suppress(ConnectionError):
                    await client.send(b"x")
                await asyncio.sleep(0.05)
        assert b" 408 " in closed.result()


async def test_headers_without_end_are_not_held(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, connect(server) as client:
        with contextlib.suppress(ConnectionError):
            await client.send(HEAD + b"x-long: " + b"x" * 2**20)
        await no_connections(server)


async def test_what_is_not_http_gets_an_error_of_the_one_shape(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, connect(server) as client:
        await client.send(b"HELLO\r\n\r\n")
        status, body = await client.rest()
        assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_request")


async def test_a_body_that_never_ends_gets_a_408_and_reaches_nothing(gateway_server: GatewayServers) -> None:
    async with gateway_server(script=SCRIPT, body_timeout_seconds=0.3) as server, connect(server) as client:
        await client.send(request(server, chat("hi"))[:-5])
        status, body = await client.rest()
        assert (status, json.loads(body)["error"]["code"]) == (408, "request_timeout")
        assert await server.entries() == []


async def test_an_idle_connection_is_closed(gateway_server: GatewayServers) -> None:
    async with gateway_server(idle_timeout_seconds=1) as server, connect(server) as client:
        await client.send(request(server, chat("hi")))
        status, _ = await client.rest()
        assert status == 200


async def test_a_request_that_takes_too_long_ends_with_504_and_costs_nothing(gateway_server: GatewayServers) -> None:
    async with gateway_server(script=SCRIPT, request_timeout_seconds=0.5) as server, server.client() as http:
        answer = await http.post("/v1/chat/completions", content=chat("please hang"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert answer.headers["x-should-retry"] == "false"
        (entry,) = await server.entries()
        assert (entry["state"], entry["reason"], entry["cost"]) == ("void", "timed_out", 0)
        assert server.engines[0].running == set()


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "again"}], ids=["plain", "idempotent"])
async def test_a_stream_that_takes_too_long_ends_with_an_event(
    gateway_server: GatewayServers, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_server(script=SCRIPT, request_timeout_seconds=0.5) as server, server.client() as http:
        body = chat("please hang", stream=True)
        async with http.stream("POST", "/v1/chat/completions", content=body, headers=headers) as answer:
            events = await data_lines(answer)
        assert answer.status_code == 200
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
        (entry,) = await server.entries()
        assert (entry["outcome"], entry["completion_tokens"]) == ("timed_out", 3)
        again = await http.post("/v1/chat/completions", content=body, headers=headers) if headers else None
    if again is not None:
        assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_answer_lost")
    assert "Traceback" not in caplog.text


async def test_a_client_that_does_not_read_holds_a_bounded_buffer(gateway_server: GatewayServers) -> None:
    async with gateway_server(script=SCRIPT, request_timeout_seconds=3) as server, connect(server) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport
        await client.send(request(server, chat("flood", stream=True, max_tokens=5000)))
        held = 0
        async with asyncio.timeout(BOUND):
            while not await server.entries():
                for connection in server.http.server_state.connections:
                    assert isinstance(connection, Connection)
                    held = max(held, connection.transport.get_write_buffer_size())  # type: ignore[attr-defined]
                await asyncio.sleep(0.02)
        assert 0 < held < 2**20
        (entry,) = await server.entries()
        assert entry["outcome"] == "timed_out"


async def test_a_client_that_leaves_with_a_second_request_in_line_stops_the_first(
    gateway_server: GatewayServers,
) -> None:
    async with gateway_server(script=SCRIPT) as server, connect(server) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a ReadTransport
        await client.send(request(server, chat("flood", stream=True, max_tokens=5000)))
        await client.send(request(server, chat("hi")))
        async with asyncio.timeout(BOUND):
            while not any(waiting(connection) for connection in server.http.server_state.connections):
                await asyncio.sleep(0.02)
        client.writer.transport.abort()
        await server.gateway.pipeline.drained(BOUND)
        assert [entry["outcome"] for entry in await server.entries()] == ["client_gone"]


def waiting(connection: object) -> bool:
    """Whether an answer waits for its reader, and a request for that answer."""
    assert isinstance(connection, Connection)
    return bool(connection.pipeline) and connection.transport.get_write_buffer_size() > 0  # type: ignore[attr-defined]

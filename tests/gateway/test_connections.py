"""One connection from its first byte to its end: order of answers, HTTP/1.0, and nothing that holds it for free."""

import asyncio
import contextlib
import json

import pytest

from engine.script import RequestScript, Script, Step, emit
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers
from tests.gateway.test_time_limits import no_connections
from tests.gateway.wire import BOUND, wire

PLAY = Script(
    requests=(
        RequestScript((emit("one"), Step("sleep", seconds=0.3), emit(" two three")), match="slowly"),
        RequestScript((emit("one two three"),)),
    )
)
CHAT = "/v1/chat/completions"
CHUNKED = "transfer-encoding: chunked"


def body(text: str = "hi", **more: object) -> bytes:
    return json.dumps({"model": DEMO, "messages": [{"role": "user", "content": text}], **more}).encode()


def post(server: GatewayServer, content: bytes, *headers: str, version: str = "1.1", secret: str = "") -> bytes:
    lines = [f"POST {CHAT} HTTP/{version}", "host: x", f"authorization: Bearer {secret or server.secret}", *headers]
    if CHUNKED not in headers:
        lines.append(f"content-length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


# HTTP/1.0


@pytest.mark.parametrize("header", ["accept: */*", "connection: keep-alive"])
async def test_http_1_0_gets_no_chunks_and_a_stream_ends_with_the_connection(
    gateway_server: GatewayServers, header: str
) -> None:
    async with gateway_server(PLAY) as server:
        for stream in (True, False):
            async with wire(server) as connection:
                await connection.send(post(server, body("slowly", stream=stream), header, version="1.0"))
                answer = await connection.answer()
                assert answer is not None
                assert answer.status == 200
                assert "transfer-encoding" not in answer.headers
                assert ("content-length" in answer.headers) is not stream
                assert answer.headers["connection"] == "close"
                if stream:
                    events = answer.body.decode().split("\n\n")
                    assert events[-2:] == ["data: [DONE]", ""]
                    texts = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
                    said = [choice["delta"].get("content", "") for text in texts for choice in text["choices"]]
                    assert "".join(said).split() == ["one", "two", "three"]
                assert await connection.reader.read() == b""
        entries = await server.entries()
        assert [entry["outcome"] for entry in entries] == ["finished"] * 2


async def test_http_1_0_with_an_idempotency_key_and_with_an_error_gets_no_chunks_either(
    gateway_server: GatewayServers,
) -> None:
    async with gateway_server(PLAY) as server:
        for content, status in ((body(stream=True), 200), (body(stream=True), 200), (body(n="x"), 422)):
            async with wire(server) as connection:
                name = f"idempotency-key: {status}"
                await connection.send(post(server, content, name, version="1.0"))
                answer = await connection.answer()
                assert answer is not None
                assert answer.status == status
                assert "transfer-encoding" not in answer.headers
                assert status != 200 or answer.body.endswith(b"data: [DONE]\n\n")
        assert len(await server.entries()) == 1


async def test_head_in_http_1_0_has_no_body(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, wire(server) as connection:
        await connection.send(b"HEAD / HTTP/1.0\r\n\r\n")
        assert (await connection.reader.read()).endswith(b"\r\n\r\n")


# What can't be read


@pytest.mark.parametrize(
    "wrong",
    [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nx-long: " + b"x" * 2**17],
    ids=["garbage", "no host", "headers without end"],
)
async def test_a_refusal_waits_for_the_answers_before_it(gateway_server: GatewayServers, wrong: bytes) -> None:
    async with gateway_server(PLAY) as server, wire(server) as connection:
        await connection.send(post(server, body("slowly", stream=True)), wrong, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        first, second = await connection.answer(), await connection.answer()
        assert first is not None
        assert second is not None
        assert (first.status, first.body.endswith(b"data: [DONE]\n\n")) == (200, True)
        assert second.status in (400, 431)
        assert await connection.answer() is None
        assert [entry["outcome"] for entry in await server.entries()] == ["finished"]


async def test_a_body_that_breaks_off_in_nonsense_is_refused_and_reaches_nothing(
    gateway_server: GatewayServers,
) -> None:
    async with gateway_server(PLAY) as server:
        async with wire(server) as connection:
            await connection.send(post(server, b"", CHUNKED), chunk(body())[:-2], b"nonsense", b"0\r\n\r\n")
            answer = await connection.answer()
            assert answer is not None
            assert answer.status == 400
            assert await connection.answer() is None
        await no_connections(server)
        assert await server.entries() == []


async def test_a_request_gets_one_answer_though_its_body_goes_wrong_later(gateway_server: GatewayServers) -> None:
    async with gateway_server(PLAY) as server, wire(server) as connection:
        await connection.send(post(server, b"", CHUNKED, secret="made-up"))
        answer = await connection.answer()
        assert answer is not None
        assert answer.status == 401
        await connection.send(b"nonsense\r\n")
        assert await connection.answer() is None


async def test_trailers_are_no_headers(gateway_server: GatewayServers) -> None:
    """A proxy looks at headers only: what it filters or sets there must not come in behind the body."""
    async with gateway_server(PLAY) as server:
        for trailer in (f"authorization: Bearer {server.secret}", f"x-api-key: {server.secret}"):
            async with wire(server) as connection:
                head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n{CHUNKED}\r\n\r\n".encode()
                await connection.send(head + chunk(body()) + f"0\r\n{trailer}\r\n\r\n".encode())
                answer = await connection.answer()
                assert answer is not None
                assert answer.status == 401
                assert await connection.open()
        async with wire(server) as connection:
            await connection.send(
                post(server, chunk(body()) + b"0\r\nidempotency-key: \r\nx-request-id: mine\r\n\r\n", CHUNKED)
            )
            answer = await connection.answer()
            assert answer is not None
            assert (answer.status, answer.headers["x-request-id"] == "mine") == (200, False)


@pytest.mark.parametrize("part", [b"0\r\nx-a: " + b"x" * 1000, b"1;" + b"x" * 1000], ids=["a trailer", "an extension"])
async def test_what_is_around_a_body_is_bounded(gateway_server: GatewayServers, part: bytes) -> None:
    async with gateway_server(PLAY) as server, wire(server) as connection:
        await connection.send(post(server, b"", CHUNKED))
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                await connection.send(part)
                part = b"x" * 1000
                await asyncio.sleep(0)
        await no_connections(server)
        assert await server.entries() == []


async def test_a_body_in_tiny_chunks_is_a_body(gateway_server: GatewayServers) -> None:
    async with gateway_server(PLAY) as server, wire(server) as connection:
        content = body("hi" + " " * 60_000)
        await connection.send(
            post(server, b"", CHUNKED), b"".join(chunk(bytes([one])) for one in content) + b"0\r\n\r\n"
        )
        answer = await connection.answer()
        assert answer is not None
        assert answer.status in (200, 400)  # the context may be too small for it
        assert await connection.open()


# Held for nothing


@pytest.mark.parametrize("kept", [b"\r\n", b"x"], ids=["empty lines", "the rest of a refused body"])
async def test_bytes_that_begin_no_request_keep_no_connection_open(gateway_server: GatewayServers, kept: bytes) -> None:
    async with gateway_server(idle_timeout_seconds=1) as server, wire(server) as connection:
        content = b"" if kept == b"\r\n" else b"x" * 10
        head = post(server, content, secret="made-up").replace(b"content-length: 10", b"content-length: 100000")
        await connection.send(head)
        answer = await connection.answer()
        assert answer is not None
        assert answer.status == 401
        closed = asyncio.create_task(connection.reader.read())
        async with asyncio.timeout(BOUND):
            while not closed.done():
                with contextlib.suppress(ConnectionError):
                    await connection.send(kept)
                await asyncio.sleep(0.05)
        await no_connections(server)


async def test_headers_that_began_while_another_request_was_answered_get_their_408(
    gateway_server: GatewayServers,
) -> None:
    async with gateway_server(PLAY, headers_timeout_seconds=0.15) as server, wire(server) as connection:
        await connection.send(post(server, body("slowly", stream=True)), b"GET / HTTP/1.1\r\n")
        first, second = await connection.answer(), await connection.answer()
        assert first is not None
        assert second is not None
        assert (first.status, first.body.endswith(b"data: [DONE]\n\n"), second.status) == (200, True, 408)


async def test_a_client_that_still_sends_gets_its_refusal(gateway_server: GatewayServers) -> None:
    """Closed at once, the connection would be reset by what still comes, and the answer lost."""
    async with gateway_server() as server:
        for _ in range(20):
            async with wire(server) as connection:
                await connection.send(b"GET / HTTP/1.1\r\nx-long: " + b"x" * 2**20)
                await asyncio.sleep(0.02)
                connection.writer.write(b"x" * 1000)
                await asyncio.sleep(0.02)
                answer = await connection.answer()
                assert answer is not None
                assert answer.status == 431
        await no_connections(server)

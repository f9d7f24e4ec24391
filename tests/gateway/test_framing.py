"""Where a request ends and the next begins, on raw sockets: what RFC 9112 asks, and nothing is parsed twice."""

import asyncio
import json
from dataclasses import dataclass

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from engine.script import RequestScript, Script, emit
from gateway.process.connections import connection_class
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers
from tests.gateway.wire import Wire, wire

PLAY = Script(requests=(RequestScript((emit("one two three"),)),))
CHAT = "/v1/chat/completions"
INNER = b"GET /metrics HTTP/1.1\r\nhost: x\r\nx-request-id: inner\r\n\r\n"
H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
OFFERS = {
    "none": b"",
    "h2c": H2C,
    "made up": b"connection: Upgrade\r\nupgrade: anything\r\n",
    "websocket": b"connection: keep-alive, upgrade\r\nupgrade: websocket\r\nsec-websocket-key: eA==\r\n",
    "TLS": b"CONNECTION: UPGRADE\r\nUPGRADE: TLS/1.0, HTTP/2.0\r\n",
    "two": b"connection: upgrade\r\nupgrade: h2c\r\nconnection: upgrade\r\nupgrade: foo\r\n",
}


def chat(**more: object) -> bytes:
    return json.dumps({"model": DEMO, "messages": [{"role": "user", "content": "hi"}], **more}).encode()


def head(line: str, *headers: bytes) -> bytes:
    return f"{line} HTTP/1.1\r\nhost: x\r\n".encode() + b"".join(headers) + b"\r\n"


def sized(body: bytes) -> bytes:
    return b"content-length: %d\r\n" % len(body)


def in_chunks(body: bytes, size: int = 7) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


CHUNKED = b"transfer-encoding: chunked\r\n"


async def answered(connection: Wire, count: int) -> list[int]:
    """The statuses of this many answers, of fewer where the connection ends."""
    found = [await connection.answer() for _ in range(count)]
    return [one.status for one in found if one is not None]


@pytest.mark.parametrize("offer", OFFERS)
async def test_what_follows_the_headers_is_the_body_whatever_they_offer(
    gateway_server: GatewayServers, offer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that is itself a request, with a key and without, in chunks or not, in one segment, two or many."""
    async with gateway_server(PLAY) as server:
        key = f"authorization: Bearer {server.secret}\r\n".encode()
        for who, status in ((key, 400), (b"authorization: Bearer made-up\r\n", 401)):
            for framing, body in ((sized(INNER), INNER), (CHUNKED, in_chunks(INNER))):
                top = head(f"POST {CHAT}", who, OFFERS[offer], framing)
                whole = top + body
                for segments in ((whole,), (top, body), (whole[:-9], whole[-9:]), (whole[:30], whole[30:])):
                    async with wire(server) as connection:
                        await connection.send(*segments)
                        assert await answered(connection, 1) == [status], segments
                        assert await connection.open(), segments
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.parametrize("offer", OFFERS)
async def test_a_good_request_is_answered_whatever_it_offers_and_the_connection_goes_on(
    gateway_server: GatewayServers, offer: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_server(PLAY) as server, wire(server) as connection:
        key = f"authorization: Bearer {server.secret}\r\n".encode()
        for body in (chat(), chat(stream=True)):
            for framing, framed in ((sized(body), body), (CHUNKED, in_chunks(body))):
                await connection.send(head(f"POST {CHAT}", key, OFFERS[offer], framing), framed)
                found = await connection.answer()
                assert found is not None
                assert found.status == 200
                assert b"one" in found.body
                assert "upgrade" not in found.headers
        await connection.send(head("GET /v1/models", key, OFFERS[offer]))  # no body at all
        assert await answered(connection, 1) == [200]
        assert await connection.open()
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


async def test_requests_in_one_segment_are_answered_in_order_whatever_they_offer(
    gateway_server: GatewayServers,
) -> None:
    async with gateway_server(PLAY) as server, wire(server) as connection:
        key = f"authorization: Bearer {server.secret}\r\n".encode()
        body, inner = chat(), in_chunks(INNER)
        await connection.send(
            head("GET /health/live", H2C)
            + head(f"POST {CHAT}", key, H2C, sized(body))
            + body
            + head(f"POST {CHAT}", H2C, CHUNKED)
            + inner
            + head("GET /v1/models", key)
            + head("GET /v1/models", OFFERS["websocket"])
        )
        assert await answered(connection, 5) == [200, 200, 401, 200, 401]
        assert await connection.open()


async def test_a_pipeline_without_end_is_bounded(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server, wire(server) as connection:
        await connection.send(head("GET /health/live", H2C) * 3000)
        found = await answered(connection, 3000)
        assert found[:-1] == [200] * (len(found) - 1)
        assert (len(found) < 100, found[-1]) == (True, 400)


@dataclass(frozen=True)
class Probe:
    """What is sent, the statuses of the answers, and whether the connection is to be used further."""

    statuses: list[int]
    goes_on: bool
    segments: tuple[bytes, ...]


def refused(*segments: bytes, status: int = 400) -> Probe:
    return Probe([status], False, segments)


def taken(*segments: bytes, status: int = 404) -> Probe:
    return Probe([status], True, segments)


def post(*headers: bytes, body: bytes = b"") -> bytes:
    """To a path that isn't there: what is framed well gets a 404."""
    return head("POST /v1/nothing", b"authorization: Bearer KEY\r\n", *headers) + body


LENGTH_5 = b"content-length: 5\r\n"
LONG = b"x-long: " + b"x" * 70_000 + b"\r\n"
MANY = b"".join(b"x-%d: %b\r\n" % (number, b"x" * 90) for number in range(700))
LIVE = b"GET /health/live HTTP/1.1\r\n"

FRAMING = {
    "content-length": taken(post(LENGTH_5, body=b"hello")),
    "content-length and chunked": refused(post(LENGTH_5, CHUNKED, body=b"0\r\n\r\n")),
    "chunked and content-length": refused(post(CHUNKED, LENGTH_5, body=b"0\r\n\r\n")),
    "two lengths": refused(post(LENGTH_5, b"content-length: 6\r\n", body=b"hello!")),
    "the same length twice": refused(post(LENGTH_5, LENGTH_5, body=b"hello")),
    "a list of lengths": refused(post(b"content-length: 5, 5\r\n", body=b"hello")),
    "a plus": refused(post(b"content-length: +5\r\n", body=b"hello")),
    "a minus": refused(post(b"content-length: -5\r\n", body=b"hello")),
    "hexadecimal": refused(post(b"content-length: 0x5\r\n", body=b"hello")),
    "a length of no number": refused(post(b"content-length: five\r\n", body=b"hello")),
    "an empty length": refused(post(b"content-length: \r\n", body=b"hello")),
    "a length beyond 64 bits": refused(post(b"content-length: 18446744073709551621\r\n", body=b"hello")),
    "a space in the length": refused(post(b"content-length: 5 5\r\n", body=b"hello")),
}
CODINGS = {
    "chunked": taken(post(CHUNKED, body=in_chunks(b"hello"))),
    "chunked in capitals": taken(post(b"Transfer-Encoding:  CHUNKED \r\n", body=in_chunks(b"hello"))),
    "gzip, chunked": refused(post(b"transfer-encoding: gzip, chunked\r\n", body=in_chunks(b"x")), status=501),
    "gzip, then chunked": refused(post(b"transfer-encoding: gzip\r\n", CHUNKED, body=in_chunks(b"hello")), status=501),
    "identity, then chunked": refused(post(b"transfer-encoding: identity\r\n", CHUNKED, body=b"0\r\n\r\n"), status=501),
    "an empty one before it": refused(post(b"transfer-encoding: ,chunked\r\n", body=b"0\r\n\r\n"), status=501),
    "chunked not last": refused(post(b"transfer-encoding: chunked, gzip\r\n", body=b"0\r\n\r\n")),
    "chunked twice": refused(post(b"transfer-encoding: chunked, chunked\r\n", body=b"0\r\n\r\n")),
    "chunked on two lines": refused(post(CHUNKED, CHUNKED, body=b"0\r\n\r\n")),
    "identity": refused(post(b"transfer-encoding: identity\r\n")),
    "not quite chunked": refused(post(b"transfer-encoding: xchunked\r\n", body=b"0\r\n\r\n")),
    "with a parameter": refused(post(b"transfer-encoding: chunked;q=1\r\n", body=b"0\r\n\r\n")),
    "with a vertical tab": refused(post(b"transfer-encoding: \x0bchunked\r\n", body=b"0\r\n\r\n")),
    "a space before the colon": refused(post(b"transfer-encoding : chunked\r\n", body=b"0\r\n\r\n")),
    "in HTTP/1.0": refused(post(CHUNKED, body=in_chunks(b"hello")).replace(b"HTTP/1.1", b"HTTP/1.0")),
    "TE names what the client takes": taken(post(b"te: gzip, trailers\r\n", LENGTH_5, body=b"hello")),
}
CHUNKS = {
    "an extension": taken(post(CHUNKED, body=b'5;a=b;c="d"\r\nhello\r\n0;last\r\n\r\n')),
    "leading zeros": taken(post(CHUNKED, body=b"0005\r\nhello\r\n0\r\n\r\n")),
    "a trailer": taken(post(CHUNKED, body=b"5\r\nhello\r\n0\r\nx-checksum: 1\r\n\r\n")),
    "cut anywhere": taken(post(CHUNKED), b"5", b"\r", b"\nhe", b"llo\r", b"\n0\r\n", b"\r\n"),
    "no number": refused(post(CHUNKED, body=b"five\r\nhello\r\n0\r\n\r\n")),
    "a sign": refused(post(CHUNKED, body=b"+5\r\nhello\r\n0\r\n\r\n")),
    "a minus": refused(post(CHUNKED, body=b"-5\r\nhello\r\n0\r\n\r\n")),
    "0x": refused(post(CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n")),
    "a space": refused(post(CHUNKED, body=b"5 \r\nhello\r\n0\r\n\r\n")),
    "an empty size": refused(post(CHUNKED, body=b"\r\nhello\r\n0\r\n\r\n")),
    "beyond 64 bits": refused(post(CHUNKED, body=b"10000000000000005\r\nhello\r\n0\r\n\r\n")),
    "too few bytes": refused(post(CHUNKED, body=b"6\r\nhello\r\n0\r\n\r\n")),
    "too many bytes": refused(post(CHUNKED, body=b"4\r\nhello\r\n0\r\n\r\n")),
    "a bare LF": refused(post(CHUNKED, body=b"5\nhello\r\n0\r\n\r\n")),
    "a bare LF in an extension": refused(post(CHUNKED, body=b"5;a\nhello\r\n0\r\n\r\n")),
    "a bare CR after the data": refused(post(CHUNKED, body=b"5\r\nhello\r0\r\n\r\n")),
    "NUL in the size": refused(post(CHUNKED, body=b"5\0\r\nhello\r\n0\r\n\r\n")),
}
HEADS = {
    "a header folded with a space": refused(LIVE + b"host: x\r\nx-a: b\r\n c\r\n\r\n"),
    "a header folded with a tab": refused(LIVE + b"host: x\r\nx-a: b\r\n\tc\r\n\r\n"),
    "a first header that is folded": refused(LIVE + b" host: x\r\nhost: x\r\n\r\n"),
    "a bare LF after the request line": refused(b"GET /health/live HTTP/1.1\nhost: x\r\n\r\n"),
    "a bare LF after a header": refused(LIVE + b"host: x\nx-a: b\r\n\r\n"),
    "a bare LF at the end": refused(LIVE + b"host: x\r\n\n"),
    "a bare CR in a value": refused(LIVE + b"host: x\r\nx-a: b\rc\r\n\r\n"),
    "a bare CR between headers": refused(LIVE + b"host: x\rx-a: b\r\n\r\n"),
    "NUL in a value": refused(LIVE + b"host: x\r\nx-a: b\0c\r\n\r\n"),
    "NUL in a name": refused(LIVE + b"host: x\r\nx-\0a: b\r\n\r\n"),
    "NUL in the path": refused(b"GET /health\0/live HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a space in a name": refused(LIVE + b"host: x\r\nx a: b\r\n\r\n"),
    "an empty name": refused(LIVE + b"host: x\r\n: b\r\n\r\n"),
    "no colon": refused(LIVE + b"host: x\r\nnonsense\r\n\r\n"),
    "no host": refused(LIVE + b"\r\n"),
    "two hosts": refused(LIVE + b"host: x\r\nhost: y\r\n\r\n"),
    "the same host twice": refused(LIVE + b"host: x\r\nhost: x\r\n\r\n"),
    "a host with a path": refused(LIVE + b"host: x/y\r\n\r\n"),
    "a host with a user": refused(LIVE + b"host: me@x\r\n\r\n"),
    "two hosts in one": refused(LIVE + b"host: x, y\r\n\r\n"),
    "an empty host": taken(LIVE + b"host:\r\n\r\n", status=200),
    "a host with a port": taken(LIVE + b"host: a_b.example:8000\r\n\r\n", status=200),
    "a host in brackets": taken(LIVE + b"host: [::1]:8000\r\n\r\n", status=200),
    "headers of 70 kB": refused(LIVE + b"host: x\r\n" + LONG + b"\r\n", status=431),
    "headers of 70 kB, many": refused(LIVE + b"host: x\r\n" + MANY + b"\r\n", status=431),
    "headers of 70 kB in two segments": refused(LIVE + b"host: x\r\n", LONG + b"\r\n", status=431),
    "headers of 70 kB with an offer": refused(LIVE + b"host: x\r\n" + H2C + LONG + b"\r\n", status=431),
    "a path of 70 kB": refused(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", status=431),
    "headers of 60 kB": taken(LIVE + b"host: x\r\nx-long: " + b"x" * 60_000 + b"\r\n\r\n", status=200),
    "a body of 70 kB in the same segment": taken(post(sized(b"x" * 70_000), body=b"x" * 70_000)),
    "trailers of 70 kB": Probe([404], False, (post(CHUNKED), b"0\r\n" + LONG)),
    "trailers of 70 kB in one segment": Probe([404], False, (post(CHUNKED, body=b"0\r\n" + LONG),)),
}
LINES = {
    "a TLS hello": refused(bytes.fromhex("1603010200010001fc0303") + bytes(500)),
    "an HTTP/2 preface": refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
    "HTTP/2.0": refused(b"GET /health/live HTTP/2.0\r\nhost: x\r\n\r\n", status=505),
    "HTTP/0.9": refused(b"GET /health/live\r\n\r\n", status=505),
    "HTTP/1.2": refused(b"GET /health/live HTTP/1.2\r\nhost: x\r\n\r\n"),
    "a method that is none": refused(b"HELLO / HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a method in small letters": refused(b"get /health/live HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a space in the path": refused(b"GET /health live HTTP/1.1\r\nhost: x\r\n\r\n"),
    "a path that isn't ASCII": refused(b"GET /health/\xff HTTP/1.1\r\nhost: x\r\n\r\n"),
    "CONNECT": refused(b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n" + INNER, status=501),
    "CONNECT with a body": refused(
        b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n" + sized(INNER) + b"\r\n", INNER, status=501
    ),
    "CONNECT to a path": refused(b"CONNECT /health/live HTTP/1.1\r\nhost: x\r\n\r\n" + INNER, status=501),
    "the absolute form": taken(b"GET http://x/health/live HTTP/1.1\r\nhost: x\r\n\r\n", status=200),
    "the absolute form without a path": taken(b"GET http://x HTTP/1.1\r\nhost: x\r\n\r\n", status=200),
    "OPTIONS for all": taken(b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", status=204),
    "an asterisk for another method": refused(b"GET * HTTP/1.1\r\nhost: x\r\n\r\n"),
    "empty lines in front": taken(b"\r\n\r\n" + LIVE + b"host: x\r\n\r\n", status=200),
    "HTTP/1.0": Probe([200], False, (b"GET /health/live HTTP/1.0\r\n\r\n",)),
    "connection: close": Probe([200], False, (LIVE + b"host: x\r\nconnection: close\r\n\r\n" + INNER,)),
}


async def misses(server: GatewayServer, probes: dict[str, Probe]) -> dict[str, object]:
    """What came otherwise than the table has it."""
    found: dict[str, object] = {}
    for name, probe in probes.items():
        async with wire(server) as connection:
            await connection.send(*(segment.replace(b"KEY", server.secret.encode()) for segment in probe.segments))
            statuses = await answered(connection, len(probe.statuses))
            try:
                goes_on: object = await connection.open()
            except AssertionError as error:
                goes_on = error
        if (statuses, goes_on) != (probe.statuses, probe.goes_on):
            found[name] = (statuses, goes_on)
    return found


TABLES = {"framing": FRAMING, "codings": CODINGS, "chunks": CHUNKS, "heads": HEADS, "lines": LINES}


@pytest.mark.parametrize("table", TABLES)
async def test_a_request_is_one_request_or_is_refused_and_the_connection_closed(
    gateway_server: GatewayServers, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_server(PLAY) as server:
        assert await misses(server, TABLES[table]) == {}
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


class Sink(asyncio.Transport):
    """Takes what is written; nobody is at the other end."""

    def write(self, data: bytes | bytearray | memoryview) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def is_closing(self) -> bool:
        return False


async def requests_in(segments: list[bytes]) -> list[tuple[str, str, bytes]]:
    """Method, path and body of each request that a connection sees in these segments."""
    seen: list[tuple[str, str, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        seen.append((scope["method"], scope["path"], body))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    limited = connection_class(headers_seconds_max=60)
    config = uvicorn.Config(app, http=limited, ws="none", lifespan="off", log_config=None)
    config.load()
    connection = limited(config=config, server_state=ServerState(), app_state={})
    connection.connection_made(Sink())
    for segment in segments:
        connection.data_received(segment)
    for _ in range(1000):
        if not connection.busy:
            break
        await asyncio.sleep(0)
    connection.connection_lost(None)
    return seen


async def test_wherever_segments_are_cut_the_requests_are_the_same() -> None:
    """The same bytes cut in two at every place, and byte by byte."""
    sent = [
        (head("POST /a", H2C, sized(INNER)), INNER, ("POST", "/a", INNER)),
        (head("GET /b", OFFERS["websocket"]), b"", ("GET", "/b", b"")),
        (head("POST /c", OFFERS["two"], CHUNKED), in_chunks(INNER), ("POST", "/c", INNER)),
        (head("POST /d", CHUNKED), in_chunks(b"hello"), ("POST", "/d", b"hello")),
        (head("POST /e", OFFERS["made up"], sized(b"")), b"", ("POST", "/e", b"")),
        (head("GET /f"), b"", ("GET", "/f", b"")),
    ]
    whole = b"".join(top + body for top, body, _ in sent)
    expected = [request for _, _, request in sent]
    cuts = [[whole[:at], whole[at:]] for at in range(1, len(whole))]
    for segments in ([whole], [bytes([byte]) for byte in whole], *cuts):
        assert await requests_in(segments) == expected, segments[0]

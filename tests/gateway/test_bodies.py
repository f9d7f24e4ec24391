"""A body's bytes: byte order marks, gzip in all its forms, and a client that waits to be asked for them."""

import gzip
import json

import pytest

from engine.script import RequestScript, Script, emit
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers
from tests.gateway.wire import wire

PLAY = Script(requests=(RequestScript((emit("one two three"),)),))
CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": DEMO, "messages": [{"role": "user", "content": "hi"}]}).encode()
MARK = b"\xef\xbb\xbf"
ZIP = gzip.compress(BODY)
CAP = 4096  # bytes of a body in these tests


def members(content: bytes, size: int) -> bytes:
    return b"".join(gzip.compress(content[start : start + size]) for start in range(0, len(content), size))


# name -> content-encoding, body, status
PLAIN, ZIPPED = "identity", "gzip"
BODIES = {
    "plain": (PLAIN, BODY, 200),
    "a byte order mark": (PLAIN, MARK + BODY, 200),
    "two marks": (PLAIN, MARK + MARK + BODY, 400),
    "a mark and nothing": (PLAIN, MARK, 400),
    "half a mark": (PLAIN, MARK[:2] + BODY, 400),
    "UTF-16": (PLAIN, BODY.decode().encode("utf-16"), 400),
    "UTF-32": (PLAIN, BODY.decode().encode("utf-32"), 400),
    "gzip": (ZIPPED, ZIP, 200),
    "GZIP": ("X-GZIP", ZIP, 200),
    "a byte order mark in gzip": (ZIPPED, gzip.compress(MARK + BODY), 200),
    "a byte order mark before gzip": (ZIPPED, MARK + ZIP, 400),
    "two members": (ZIPPED, members(BODY, 40), 200),
    "a member for each byte": (ZIPPED, members(BODY, 1), 200),
    "an empty member first": (ZIPPED, gzip.compress(b"") + ZIP, 200),
    "an empty member last": (ZIPPED, ZIP + gzip.compress(b""), 200),
    "garbage behind it": (ZIPPED, ZIP + b"garbage", 400),
    "one byte behind it": (ZIPPED, ZIP + b"\x1f", 400),
    "zeros behind it": (ZIPPED, ZIP + bytes(10), 400),
    "plain JSON behind it": (ZIPPED, ZIP + BODY, 400),
    "cut off": (ZIPPED, ZIP[:-1], 400),
    "cut off in its second member": (ZIPPED, ZIP + gzip.compress(b" ")[:-3], 400),
    "a wrong checksum": (ZIPPED, ZIP[:-8] + bytes(8), 400),
    "nothing": (ZIPPED, b"", 400),
    "not gzip": (ZIPPED, BODY, 400),
    "gzip that isn't said to be": (PLAIN, ZIP, 400),
    "gzip twice": ("gzip, gzip", gzip.compress(ZIP), 415),
    "Brotli": ("br", BODY, 415),
    "as large as it may be": (ZIPPED, gzip.compress(BODY.ljust(CAP)), 200),
    "one byte more": (ZIPPED, gzip.compress(BODY.ljust(CAP + 1)), 413),
    "as large as it may be, in members": (ZIPPED, members(BODY.ljust(CAP), 1000), 200),
    "one byte more, in members": (ZIPPED, members(BODY.ljust(CAP + 1), 1000), 413),
    "each member small, all together large": (ZIPPED, ZIP + gzip.compress(b" " * (CAP - len(BODY))) * 5, 413),
    "a bomb": (ZIPPED, gzip.compress(bytes(2 * 10**6)), 413),
}


@pytest.mark.parametrize("framing", ["sized", "chunked"])
async def test_a_body_is_read_as_it_is_meant_or_refused(gateway_server: GatewayServers, framing: str) -> None:
    async with gateway_server(PLAY, body_bytes_max=CAP) as server, server.client() as http:
        found = {}
        for name, (encoding, body, _) in BODIES.items():
            headers = {"content-type": "application/json", "content-encoding": encoding}
            content = pieces(body) if framing == "chunked" else body
            answer = await http.post(CHAT, content=content, headers=headers)
            found[name] = answer.status_code
            if answer.status_code >= 400:
                assert answer.json()["error"]["message"], name
    assert found == {name: status for name, (_, _, status) in BODIES.items()}


async def pieces(body: bytes):  # type: ignore[no-untyped-def]
    for start in range(0, len(body), 97):
        yield body[start : start + 97]


async def test_what_admin_takes_may_have_a_mark_too(gateway_server: GatewayServers) -> None:
    admin_key = "admin-" + "a" * 24
    async with gateway_server(admin_key=admin_key) as server, server.client(admin_key) as http:
        body = MARK + b'{"name": "acme", "limit": {"kind": "none"}}'
        answer = await http.post("/admin/accounts", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (201, 422), answer.text
        assert answer.json().get("error", {}).get("code") != "invalid_json"


async def test_more_members_than_anybody_makes_are_refused_by_their_number(gateway_server: GatewayServers) -> None:
    async with gateway_server(PLAY) as server, server.client() as http:
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        answer = await http.post(CHAT, content=ZIP + gzip.compress(b"") * 150_000, headers=headers)
        assert answer.status_code == 400
        assert "members" in answer.json()["error"]["message"]


def waiting(server: GatewayServer, secret: str, *headers: str, version: str = "1.1", path: str = CHAT) -> bytes:
    lines = [f"POST {path} HTTP/{version}", "host: x", f"authorization: Bearer {secret}", *headers]
    return "\r\n".join([*lines, f"content-length: {len(BODY)}", "expect: 100-continue", "", ""]).encode()


async def test_a_client_that_waits_to_be_asked_is_asked(gateway_server: GatewayServers) -> None:
    async with gateway_server(PLAY) as server, wire(server) as connection:
        for offer in ((), ("connection: Upgrade", "upgrade: h2c")):
            await connection.send(waiting(server, server.secret, *offer))
            interim = await connection.answer()
            assert interim is not None
            assert interim.status == 100
            await connection.send(BODY)
            answer = await connection.answer()
            assert answer is not None
            assert answer.status == 200
        assert await connection.open()


async def test_a_client_that_is_refused_isnt_asked_for_its_body(gateway_server: GatewayServers) -> None:
    async with gateway_server(PLAY) as server:
        for secret, path, status in (("made-up", CHAT, 401), (server.secret, "/v1/nothing", 404)):
            async with wire(server) as connection:
                await connection.send(waiting(server, secret, path=path))
                answer = await connection.answer()
                assert answer is not None
                assert answer.status == status
                await connection.send(BODY)  # it may send it all the same
                assert await connection.open()


async def test_a_client_that_doesnt_wait_isnt_asked_and_neither_is_one_of_http_1_0(
    gateway_server: GatewayServers,
) -> None:
    async with gateway_server(PLAY) as server, wire(server) as connection:
        await connection.send(waiting(server, server.secret, version="1.0"), BODY)
        answer = await connection.answer()
        assert answer is not None
        assert answer.status == 200

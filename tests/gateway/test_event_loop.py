"""The event loop belongs to everybody: whatever one client sends, others get their turn.

Each body is sent beside a plain stream. Asserted is work, not time: the CPU time between two turns of the loop, and
where a body was read.
"""

import asyncio
import gc
import gzip
import json
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from engine.script import RequestScript, Script, emit, sleep
from gateway.request.exchange import Exchange
from gateway.request.large_bodies import LargeBodies
from pricing.keys import KeyTerms
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers, make_key
from tests.gateway.loop_meter import loop_meter

WORST_SECONDS = 0.05
BYTES = 4 * 2**20 - 1024
WORDS = 60
CHAT, COMPLETIONS, NATIVE = "/v1/chat/completions", "/v1/completions", f"/v1/inference/{DEMO}"
MESSAGES, RESPONSES, COUNT = "/v1/messages", "/v1/responses", "/v1/messages/count_tokens"
STREAM = {"model": DEMO, "messages": [{"role": "user", "content": "plain stream"}], "stream": True}
SCRIPT = Script(
    (
        RequestScript(
            tuple(step for _ in range(WORDS) for step in (emit("word "), sleep(0.005))), match="plain stream"
        ),
        RequestScript((emit("ok"),)),
    ),
    context_length=20_000,
)


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": DEMO, "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def filled(unit: str, before: str, after: str) -> bytes:
    count = (BYTES - len(before) - len(after)) // (len(unit) + 1)
    return (before + ",".join([unit] * count) + after).encode()


def named(count: int, name: str = "name") -> dict[str, int]:
    return {f"{name}{number}": 0 for number in range(count)}


def alike(count: int) -> list[str]:
    letters = random.Random(1)
    return ["".join(letters.sample("ab" * 99, 198)) for _ in range(count)]


def tools(names: list[str]) -> bytes:
    functions = [{"type": "function", "function": {"name": name}} for name in names]
    return chat(tools=functions, tool_choice={"type": "function", "function": {"name": "ab" * 99}})


USER = f'{{"model":"{DEMO}","messages":[{{"role":"user","content":'
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 5000
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}

# What is sent where, the status, and whether it is read in the process.
CASES: dict[str, tuple[str, Callable[[], bytes], int, bool]] = {
    "names of template variables": (CHAT, lambda: chat(chat_template_kwargs=named(100_000)), 422, True),
    "a few too many template variables": (CHAT, lambda: chat(chat_template_kwargs=named(65)), 422, False),
    "names in metadata": (CHAT, lambda: chat(metadata=named(200_000)), 422, True),
    "names at the top": (CHAT, lambda: chat(**named(100_000)), 422, True),
    "names of biases": (CHAT, lambda: chat(logit_bias=named(100_000, "")), 422, True),
    "short messages": (CHAT, lambda: chat(messages=TURNS), 200, True),
    "too many messages": (CHAT, lambda: chat(messages=TURNS * 10), 422, True),
    "parts": (CHAT, lambda: filled('{"type":"text","text":""}', f"{USER}[", "]}]}"), 422, True),
    "tool calls": (CHAT, lambda: chat(messages=[{"role": "assistant", "tool_calls": [CALL] * 1000}] * 40), 422, True),
    "empty lists": (CHAT, lambda: filled("[]", f'{USER}""}}],"metadata":{{"a":[', "]}}"), 422, True),
    "numbers": (CHAT, lambda: filled("1.5", f'{USER}""}}],"metadata":{{"a":[', "]}}"), 422, True),
    "an open list in each list": (CHAT, lambda: b"[" * BYTES, 400, True),
    "stops": (CHAT, lambda: chat(stop=["x"] * 500_000), 422, True),
    "tools with names that are alike": (CHAT, lambda: tools(alike(128)), 422, False),
    "one long text": (CHAT, lambda: json.dumps(json.loads(USER + '"' + "a" * BYTES + '"}]}')).encode(), 200, False),
    "escaped letters": (CHAT, lambda: (USER + '"' + "\\u0061" * (BYTES // 6) + '"}]}').encode(), 200, False),
    "a long name of a model": (CHAT, lambda: chat(model="x" * BYTES), 404, False),
    "a long name of a field": (CHAT, lambda: chat(**{"x" * BYTES: 1}), 200, False),
    "token ids": (COMPLETIONS, lambda: filled("17", f'{{"model":"{DEMO}","prompt":[', "]}"), 400, True),
    "prompts": (COMPLETIONS, lambda: filled('"a"', f'{{"model":"{DEMO}","prompt":[', "]}"), 422, True),
    "native stops": (NATIVE, lambda: filled('"a"', '{"input":"hi","stop":[', "]}"), 422, True),
    "turns": (MESSAGES, lambda: json.dumps({"model": DEMO, "messages": TURNS}).encode(), 200, True),
    "turns to count": (COUNT, lambda: json.dumps({"model": DEMO, "messages": TURNS}).encode(), 200, True),
    "blocks": (MESSAGES, lambda: filled('{"type":"text","text":"a"}', f"{USER}[", "]}]}"), 422, True),
    "items": (RESPONSES, lambda: json.dumps({"model": DEMO, "input": TURNS}).encode(), 200, True),
    "zipped names": (CHAT, lambda: gzip.compress(chat(metadata=named(200_000)), 1), 422, True),
}


async def stream(client: httpx.AsyncClient, begun: asyncio.Event) -> int:
    """How many words came."""
    words = 0
    async with client.stream("POST", CHAT, json=STREAM) as answer:
        async for line in answer.aiter_lines():
            words += "word" in line
            begun.set()
    return words


async def send(server: GatewayServer, path: str, body: bytes, *headers: str) -> tuple[int, bytes]:
    """By hand: a client of httpx's would do its own work in our loop."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        f"authorization: Bearer {server.secret}",
        f"content-length: {len(body)}",
        "connection: close",
        *headers,
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        for start in range(0, len(body), 2**18):
            writer.write(body[start : start + 2**18])
            await writer.drain()
        answer = await reader.read()
    finally:
        writer.close()
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("name", CASES)
async def test_a_stream_goes_on_beside_any_body(gateway_server: GatewayServers, name: str) -> None:
    path, make, status, apart = CASES[name]
    body = make()
    headers = ["content-encoding: gzip"] if name.startswith("zipped") else []
    # A busy machine makes every gateway late; here it shall take requests all the same.
    async with gateway_server(SCRIPT, loop_delay_seconds_max=60) as server, server.client() as client:
        await send(server, path, b"{}")
        await server.gateway.large_bodies.warm_up()
        begun = asyncio.Event()
        streaming = asyncio.create_task(stream(client, begun))
        await begun.wait()
        async with loop_meter() as meter:
            found, answer = await send(server, path, body, *headers)
        assert found == status, answer[:500]
        assert len(answer) < 4096
        assert meter.worst < WORST_SECONDS
        assert server.gateway.large_bodies.checks == apart
        assert await streaming == WORDS


async def test_a_small_body_is_read_where_it_comes(gateway_server: GatewayServers) -> None:
    async with gateway_server(SCRIPT) as server:
        for body in (chat(), chat(messages=TURNS[:200]), chat(messages=[{"role": "user", "content": "a, " * 5000}])):
            status, _ = await send(server, CHAT, body)
            assert status == 200
        assert server.gateway.large_bodies.checks == 0


async def test_too_many_values_are_refused_with_the_bound(gateway_server: GatewayServers) -> None:
    async with gateway_server(SCRIPT, body_values_max=10_000) as server:
        status, answer = await send(server, CHAT, chat(metadata=named(10_001)))
        assert status == 422
        assert "more than the 10000 values" in json.loads(answer)["error"]["message"]
        ids = {"model": DEMO, "prompt": [7] * 15_000}
        assert (await send(server, COMPLETIONS, json.dumps(ids).encode()))[0] == 200


async def test_a_large_body_gets_the_same_answer_as_a_small_one(gateway_server: GatewayServers) -> None:
    """Whatever is wrong with it, and in the same order: the model before the ranges, the key's models before both."""
    padding = {"metadata": {"list": [0] * 10_000}}
    bodies: list[dict[str, Any]] = [
        {},
        {"model": "nobody/knows", "temperature": 9},
        {"temperature": 9},
        {"messages": [{"role": "nobody", "content": "x"}]},
        {"max_tokens": 1, "n": 2, "seed": 3, "stop": "x", "user": "somebody"},
        {"audio": {}},
        {"model": 7},
        {"chat_template_kwargs": named(65)},
    ]
    async with gateway_server(SCRIPT) as server:
        for fields in bodies:
            small = await send(server, CHAT, chat(**{"metadata": {}, **fields}))
            large = await send(server, CHAT, chat(**{**padding, **fields}))
            assert large[0] == small[0]
            error = json.loads(small[1]).get("error")
            assert json.loads(large[1]).get("error") == error
        assert server.gateway.large_bodies.checks == len(bodies)


async def test_each_key_waits_for_itself_and_not_for_another(gateway_server: GatewayServers) -> None:
    line = LargeBodies(waiting_max=8, seconds_max=1, memory_bytes_max=2**30)
    order: list[str] = []

    async def work(key_id: int, name: str) -> None:
        lock = await line.enter(key_id)
        order.append(name)
        await asyncio.sleep(0)
        line.leave(lock)

    await asyncio.gather(*(work(1, f"first {number}") for number in range(6)), work(2, "second"))
    assert order.index("second") == 1
    assert line.waiting == 0


async def test_more_large_requests_than_may_wait_get_503(gateway_server: GatewayServers) -> None:
    async with gateway_server(SCRIPT, large_requests_max=2) as server:
        body = chat(metadata={"list": [0] * 10_000})
        found = await asyncio.gather(*(send(server, CHAT, body) for _ in range(6)))
        statuses = sorted(status for status, _ in found)
        assert statuses == [200, 200, 503, 503, 503, 503]
        refused = next(json.loads(answer) for status, answer in found if status == 503)
        assert refused["error"]["code"] == "too_many_large_requests"


async def test_a_client_that_leaves_the_line_leaves_room(gateway_server: GatewayServers) -> None:
    async with gateway_server(SCRIPT, large_requests_max=1) as server:
        body = chat(metadata={"list": [0] * 10_000})
        for _ in range(3):
            leaving = asyncio.create_task(send(server, CHAT, body))
            while not server.gateway.large_bodies.waiting:
                await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            while server.gateway.large_bodies.waiting:
                await asyncio.sleep(0.01)
        assert (await send(server, CHAT, body))[0] == 200


@pytest.mark.parametrize(
    ("settings", "what"),
    [({"body_check_seconds_max": 0.001}, "s of CPU time"), ({"body_check_memory_bytes_max": 2**27}, "bytes of memory")],
    ids=["time", "memory"],
)
async def test_a_body_that_takes_too_much_to_check_is_refused_and_the_next_is_not(
    gateway_server: GatewayServers, settings: dict[str, Any], what: str
) -> None:
    huge = b'{"model":"x","a":[' + b",".join([b'{"a":{"a":{}}}'] * 250_000) + b"]}"
    async with gateway_server(SCRIPT, **settings) as server:
        status, answer = await send(server, CHAT, huge)
        assert (status, json.loads(answer)["error"]["code"]) == (413, "body_too_large")
        assert what in json.loads(answer)["error"]["message"]
        status, _ = await send(server, CHAT, chat())
        assert status == 200


async def test_a_key_that_may_not_use_the_model_is_told_before_the_rest(gateway_server: GatewayServers) -> None:
    async with gateway_server(SCRIPT) as server:
        server.secret = await make_key(server.database, "few", KeyTerms(models=frozenset({"somebody/else"})))
        for metadata in ({}, {"list": [0] * 10_000}):
            status, _ = await send(server, CHAT, chat(metadata=metadata, temperature=9))
            assert status == 403


@pytest.mark.parametrize(
    "fields",
    [{"temperature": 9}, {"temperature": 9, "metadata": {"list": [0] * 10_000}}, {"model": "nobody/knows"}, {}],
    ids=["refused", "refused apart", "unknown model", "answered"],
)
async def test_a_body_is_gone_with_its_request(gateway_server: GatewayServers, fields: dict[str, Any]) -> None:
    """And doesn't wait for the garbage collector: a dozen of 4 MiB a second would be a gigabyte by then."""
    async with gateway_server(SCRIPT) as server:
        await send(server, CHAT, b"{}")
        gc.collect()
        gc.disable()
        try:
            await send(server, CHAT, chat(**fields))
            for _ in range(20):
                await asyncio.sleep(0.01)
            assert [held for held in gc.get_objects() if type(held) is Exchange] == []
        finally:
            gc.enable()

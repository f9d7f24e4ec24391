"""A stream is never silent for long: pings before the first token and in gaps, in each route's form."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from engine.script import HANG, RequestScript, Script, emit, fail, sleep
from gateway.schemas.anthropic import Ping
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers
from tests.gateway.test_real_clients import port_of
from tests.gateway.wire import wire
from tests.nginx import running_nginx

SECONDS = 0.02
GAP = sleep(5 * SECONDS)
SCRIPT = Script(
    (
        RequestScript((GAP, emit("one"), GAP, emit("two three")), match="slow"),
        RequestScript((GAP, fail("broken")), match="broken"),
        RequestScript((GAP, emit("one"), GAP, fail("broken")), match="cut"),
        RequestScript((HANG,), match="hang"),
        RequestScript((sleep(1.5), emit("one"), sleep(1.5), emit("two")), match="behind a proxy"),
        RequestScript((emit("at once"),)),
    )
)


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


Asked = tuple[str, dict[str, Any]]


def ask(route: str, text: str) -> Asked:
    bodies: dict[str, Asked] = {
        "chat": ("/v1/chat/completions", {"model": DEMO, "messages": said(text)}),
        "completions": ("/v1/completions", {"model": DEMO, "prompt": text}),
        "several completions": ("/v1/completions", {"model": DEMO, "prompt": [text, text]}),
        "native": (f"/v1/inference/{LLAMA2}", {"input": text}),
        "messages": ("/v1/messages", {"model": DEMO, "messages": said(text), "max_tokens": 99}),
        "responses": ("/v1/responses", {"model": DEMO, "input": text}),
    }
    path, body = bodies[route]
    return path, {**body, "stream": True}


ROUTES = ["chat", "completions", "several completions", "native", "messages", "responses"]
routes = pytest.mark.parametrize("route", ROUTES)


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(SCRIPT, stream_ping_seconds=SECONDS) as running:
        yield running


def ping(route: str) -> str:
    return 'event: ping\ndata: {"type": "ping"}' if route == "messages" else ": ping"


def runs(route: str, text: str) -> list[str]:
    """What a stream holds, in a word each: `pings` for some in a row, `event`, `error`."""
    assert text.endswith("\n\n")
    found: list[str] = []
    for event in text.removesuffix("\n\n").split("\n\n"):
        if event == ping(route):
            found += ["pings"] if found[-1:] != ["pings"] else []
        else:
            assert event.startswith(("data: ", "event: ")), event
            found.append("error" if '"engine_error"' in event else "event")
    return found


@routes
@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "once"}], ids=["plain", "idempotent"])
async def test_pings_come_before_the_first_token_and_in_gaps(
    server: GatewayServer, route: str, headers: dict[str, str]
) -> None:
    path, body = ask(route, "slow")
    async with server.client() as http:
        answer = await http.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        found = runs(route, answer.text)
        assert found[0] == "pings"
        assert found.count("pings") == 2
        assert found[-1] == "event"
        assert '"one' in answer.text
        assert "three" in answer.text
        if headers:
            again = await http.post(path, json=body, headers=headers)
            assert again.headers["idempotency-replayed"] == "true"
            without = answer.text.replace(f"{ping(route)}\n\n", "")
            assert again.text == without
    entries = await server.entries()
    assert len(entries) == 1
    assert entries[0]["completion_tokens"] == (6 if route == "several completions" else 3)


@routes
async def test_without_pings_there_are_none(gateway_server: GatewayServers, route: str) -> None:
    path, body = ask(route, "slow")
    async with gateway_server(SCRIPT, stream_ping_seconds=0) as server, server.client() as http:
        assert "ping" not in (await http.post(path, json=body)).text


async def test_a_stream_that_says_something_needs_none_and_a_document_has_none(server: GatewayServer) -> None:
    async with server.client() as http:
        for text, stream in (("at once", True), ("slow", False)):
            path, body = ask("messages", text)
            assert "ping" not in (await http.post(path, json={**body, "stream": stream})).text


@routes
@pytest.mark.parametrize("text", ["broken", "cut"])
async def test_after_a_ping_an_error_is_the_routes_event(
    server: GatewayServer, route: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, body = ask(route, text)
    with caplog.at_level(logging.INFO, "farebox.access"):
        async with server.client() as http:
            answer = await http.post(path, json=body)
    assert answer.status_code == 200
    found = runs(route, answer.text)
    assert found[0] == "pings"
    assert found[-1] == "error"
    last = answer.text.removesuffix("\n\n").split("\n\n")[-1]
    assert last.startswith("event: error\ndata: ") == (route in ("messages", "responses"))
    error: Any = json.loads(last.partition("data: ")[2])["error"]
    assert error["code"] == "engine_error"
    (entry,) = await server.entries()
    # Where no token was sent nothing is charged.
    assert (entry["outcome"], entry["reason"]) in [("void", "engine_error"), ("engine_error", None)]
    assert (entry["outcome"] == "void") == (text == "broken")
    (line,) = [vars(record)["fields"] for record in caplog.records if record.name == "farebox.access"]
    assert (line["status"], line["code"]) == (200, "engine_error")


async def test_an_answer_of_pings_and_an_error_is_not_given_again(server: GatewayServer) -> None:
    """An Idempotency-Key may be tried again where nothing was delivered."""
    path, body = ask("chat", "broken")
    async with server.client() as http:
        for _ in range(2):
            text = ""
            async with http.stream("POST", path, json=body, headers={"idempotency-key": "once"}) as answer:
                with contextlib.suppress(httpx.RemoteProtocolError):  # its end isn't sent
                    async for piece in answer.aiter_text():
                        text += piece
            assert runs("chat", text)[-1] == "error"
            assert "idempotency-replayed" not in answer.headers
    assert len(await server.entries()) == 2


@pytest.mark.parametrize("route", ["chat", "messages", "native"])
async def test_a_client_that_leaves_after_a_ping_is_charged_as_one_without_a_token(
    server: GatewayServer, route: str
) -> None:
    path, body = ask(route, "please hang now")
    async with server.client() as http, http.stream("POST", path, json=body) as answer:
        async for piece in answer.aiter_text():
            assert runs(route, piece) == ["pings"]
            if any(engine.running for engine in server.engines):  # a ping may come before the engine has it
                break
    while server.gateway.pipeline.running:
        await asyncio.sleep(0.005)
    (entry,) = await server.entries()
    assert (entry["outcome"], entry["completion_tokens"]) == ("client_gone", 0)
    assert entry["prompt_tokens"] > 0


async def test_pings_to_several_that_share_an_idempotency_key(server: GatewayServer) -> None:
    path, body = ask("chat", "slow")
    async with server.client() as http:
        first, second = await asyncio.gather(
            *(http.post(path, json=body, headers={"idempotency-key": "once"}) for _ in range(2))
        )
    for answer in (first, second):
        assert "pings" in runs("chat", answer.text)
    assert first.text.replace(": ping\n\n", "") == second.text.replace(": ping\n\n", "")
    assert len(await server.entries()) == 1


async def test_http_1_0_gets_pings_without_chunks(server: GatewayServer) -> None:
    path, body = ask("chat", "slow")
    content = json.dumps(body)
    head = f"POST {path} HTTP/1.0\r\nauthorization: Bearer {server.secret}\r\ncontent-length: {len(content)}\r\n\r\n"
    async with wire(server) as connection:
        await connection.send((head + content).encode())
        answer = await connection.answer()
    assert answer is not None
    assert runs("chat", answer.body.decode())[0] == "pings"


async def test_openais_sdk_takes_them(server: GatewayServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.secret, max_retries=0) as client:
        chat: Any = await client.chat.completions.create(model=DEMO, messages=said("slow"), stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in chat]) == "onetwo three"
        text = await client.completions.create(model=DEMO, prompt="slow", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in text]) == "onetwo three"
        async with client.responses.stream(model=DEMO, input="slow") as response:
            assert (await response.get_final_response()).output_text == "onetwo three"
        broken: Any = await client.chat.completions.create(model=DEMO, messages=said("broken"), stream=True)
        with pytest.raises(openai.APIError, match="The engine failed"):
            await anext(broken)


async def test_anthropics_sdk_takes_them(server: GatewayServer) -> None:
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key=server.secret, max_retries=0) as client:
        asked: Any = {"model": DEMO, "max_tokens": 50}
        async with client.messages.stream(**asked, messages=said("slow")) as stream:
            assert await stream.get_final_text() == "onetwo three"
        with pytest.raises(anthropic.APIStatusError, match="The engine failed"):
            async with client.messages.stream(**asked, messages=said("broken")) as stream:
                await stream.until_done()


async def test_a_proxy_with_a_short_limit_passes_a_slow_answer_on(
    gateway_server: GatewayServers, tmp_path: Path
) -> None:
    async with gateway_server(SCRIPT, stream_ping_seconds=0.3) as server:
        with running_nginx(tmp_path, port_of(server), "proxy_read_timeout 1s;") as url:
            headers = {"authorization": f"Bearer {server.secret}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=20) as http:
                asked = [ask(route, "behind a proxy") for route in ROUTES]
                answers = await asyncio.gather(*(http.post(path, json=body) for path, body in asked))
    for route, answer in zip(ROUTES, answers, strict=True):
        assert answer.status_code == 200, answer.text
        assert runs(route, answer.text)[-1] == "event"
        assert "two" in answer.text


def test_the_event_is_documented() -> None:
    assert json.loads(ping("messages").partition("data: ")[2]) == Ping(type="ping")

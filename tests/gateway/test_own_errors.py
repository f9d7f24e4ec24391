"""A fault of the gateway's own in the middle of an answer: told as what it is, and charged as any failure.

The encoders know no such fault, so the engine here hands over a delta that no encoder can take: a number for a text.
"""

import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from engine.base import Delta, Generation, GenerationRequest, TokenCounts
from engine.script import HANG, RequestScript, Script, emit
from engine.scripted import ScriptedEngine
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers

SCRIPT = Script((RequestScript((emit("one two three four"), HANG)),))
WHOLE = Script((RequestScript((emit("one two three four"),)),))
SENT = 2


class Garbling(Generation):
    """Another generation, of which the delta after SENT tokens holds what can't be encoded."""

    def __init__(self, inner: Generation) -> None:
        self._inner = inner

    @property
    def counts(self) -> TokenCounts:
        return self._inner.counts

    def __aiter__(self) -> "Garbling":
        return self

    async def __anext__(self) -> Delta:
        delta = await self._inner.__anext__()
        if delta.completion_tokens > SENT:
            delta.text = 7  # type: ignore[assignment]  # that's the fault
        return delta

    async def aclose(self) -> None:
        await self._inner.aclose()


class GarblingEngine(ScriptedEngine):
    async def generate(self, request: GenerationRequest) -> Any:
        return Garbling(await super().generate(request))


def messages() -> list[dict[str, str]]:
    return [{"role": "user", "content": "hi"}]


ROUTES: dict[str, tuple[str, dict[str, object]]] = {
    "chat": ("/v1/chat/completions", {"model": DEMO, "messages": messages()}),
    "completions": ("/v1/completions", {"model": DEMO, "prompt": "hi"}),
    "native": (f"/v1/inference/{DEMO}", {"input": "hi"}),
    "messages": ("/v1/messages", {"model": DEMO, "messages": messages(), "max_tokens": 16}),
    "responses": ("/v1/responses", {"model": DEMO, "input": "hi"}),
}


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(SCRIPT, engine=GarblingEngine, shutdown_seconds=0.1) as running:
        yield running


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [vars(record)["fields"] for record in caplog.records if record.name == "farebox.access"]


async def post(server: GatewayServer, route: str, **more: object) -> httpx.Response:
    path, body = ROUTES[route]
    async with server.client() as http:
        return await http.post(path, json=body | more)


@pytest.mark.parametrize("idempotent", [False, True], ids=["plain", "idempotent"])
@pytest.mark.parametrize("route", ROUTES)
async def test_in_a_stream_it_is_the_routes_error_event_and_charges_what_was_sent(
    server: GatewayServer, route: str, idempotent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path, body = ROUTES[route]
    headers = {"idempotency-key": "once"} if idempotent else {}
    with caplog.at_level(logging.INFO):
        async with server.client() as http:
            answer = await http.post(path, json=body | {"stream": True}, headers=headers)
    assert answer.status_code == 200
    *_, last, _ = answer.text.split("\n\n")
    assert '"code": "internal_error"' in last
    assert last.startswith("event: error\n") == (route in ("messages", "responses"))
    assert "Input should be" not in answer.text  # pydantic's words
    (entry,) = await server.entries()
    assert (entry["state"], entry["outcome"], entry["completion_tokens"]) == ("settled", "internal_error", SENT)
    assert entry["cost"] > 0  # type: ignore[operator]  # picodollars
    assert not any(engine.running for engine in server.engines)
    (line,) = access_lines(caplog)
    assert (line["status"], line["code"], line["outcome"]) == (200, "internal_error", "internal_error")
    count = server.gateway.metrics.registry.get_sample_value
    assert count("farebox_rejections_total", {"reason": "internal_error"}) == 1
    assert not count("farebox_disconnects_total", {"model": DEMO})


@pytest.mark.parametrize("route", ROUTES)
async def test_in_a_document_it_is_a_500_and_costs_nothing(
    gateway_server: GatewayServers, route: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_server(WHOLE, engine=GarblingEngine) as server:
        with caplog.at_level(logging.INFO):
            answer = await post(server, route)
        (entry,) = await server.entries()
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert (entry["state"], entry["reason"], entry["cost"]) == ("void", "internal_error", 0)
    (line,) = access_lines(caplog)
    assert (line["status"], line["code"], line["outcome"]) == (500, "internal_error", "internal_error")

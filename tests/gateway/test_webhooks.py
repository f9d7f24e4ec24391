"""Webhooks end to end: a promise, its fulfilment, its delivery, over failures and restarts."""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from engine.script import HANG, REJECT, RequestScript, Script, emit, fail
from gateway.webhooks.calls import WebhookSettings, sign
from pricing.balance import Limit, LimitKind
from pricing.keys import KeyTerms
from pricing.money import Picodollars
from tests.gateway.conftest import (
    DEMO,
    WEBHOOK_SECRET,
    GatewayServer,
    GatewayServers,
    make_key,
    plain_config,
    rows,
    serve_app,
)
from tests.server import start_server

URL = f"/v1/inference/{DEMO}"
SECONDS_MAX = 20
SCRIPT = Script(
    requests=(
        RequestScript((emit("one two"), HANG), match="please hang"),
        RequestScript((emit("one two"), fail("broken")), match="please fail"),
        RequestScript((REJECT,), match="no room"),
        RequestScript((emit("Hello you"),)),
    )
)
SETTINGS = {
    "webhook_secret": WEBHOOK_SECRET,
    "webhook_allow_private": True,
    "webhook_pause_seconds": 0.02,
    "webhook_timeout_seconds": 1.0,
}


@dataclass
class Receiver:
    """A client's web server. It answers with `statuses` in turn, the last again and again; 0 never answers."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [200])
    calls: "asyncio.Queue[tuple[dict[str, str], bytes]]" = field(default_factory=asyncio.Queue)
    elsewhere: int = 0
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    async def done(self, request: Request) -> Response:
        body = await request.body()
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        self.calls.put_nowait((dict(request.headers), body))
        if status == 0:
            await self.hanging.wait()
        if status == 307:
            return RedirectResponse(f"{self.url.rpartition('/')[0]}/elsewhere", 307)
        return Response(status_code=status or 200)

    async def other(self, request: Request) -> Response:
        self.elsewhere += 1
        return Response()

    async def call(self) -> tuple[dict[str, str], bytes]:
        async with asyncio.timeout(SECONDS_MAX):
            return await self.calls.get()

    async def document(self) -> dict[str, Any]:
        _, body = await self.call()
        document: dict[str, Any] = json.loads(body)
        return document


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = Starlette(
        routes=[
            Route("/done", receiver.done, methods=["POST"]),
            Route("/elsewhere", receiver.other, methods=["GET", "POST"]),
        ]
    )
    async with serve_app(uvicorn.Server(plain_config(app))) as url:
        receiver.url = f"{url}/done"
        yield receiver
        receiver.hanging.set()


async def ask(server: GatewayServer, url: str, text: str = "a b", secret: str | None = None) -> httpx.Response:
    async with server.client(secret) as http:
        return await http.post(URL, json={"input": text, "webhook": url, "max_new_tokens": 8})


async def webhook_row(url: str, state: str) -> dict[str, Any]:
    """The one webhook of the database, once it is in this state."""
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        (row,) = await rows(url, "webhooks")
        if row["state"] == state:
            return row
        await asyncio.sleep(0.02)
    raise AssertionError(f"the webhook is {row['state']}, not {state}: {row['last_error']}")


def documented_check(repository: Path) -> Callable[..., bool]:
    """The function that docs/webhooks.md gives to clients."""
    (snippet,) = re.findall(r"```python\n(.*?)```", (repository / "docs" / "webhooks.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(snippet, names)
    check = names["is_genuine"]
    assert callable(check)
    return check


async def test_a_request_is_answered_at_once_and_its_result_delivered_signed(
    gateway_server: GatewayServers, receiver: Receiver, repository: Path
) -> None:
    async with gateway_server(script=SCRIPT, **SETTINGS) as server:
        answer = await ask(server, receiver.url)
        assert answer.status_code == 200
        queued = answer.json()
        assert queued["inference_status"] == {
            "status": "queued",
            "runtime_ms": 0,
            "cost": 0.0,
            "tokens_input": 2,
            "tokens_generated": 0,
        }
        headers, body = await receiver.call()
        result = json.loads(body)
        assert result["request_id"] == queued["request_id"] == headers["x-request-id"]
        assert result["inference_status"]["status"] == "succeeded"
        assert result["results"] == [{"generated_text": "Hello you"}]
        (entry,) = await server.entries()
        assert entry["request_id"] == result["request_id"]
        assert result["inference_status"]["cost"] == entry["cost"] / 10**12

        async with server.client() as http:
            secret = (await http.get("/v1/webhooks/secret")).json()["secret"]
        is_genuine = documented_check(repository)
        signature = headers["farebox-signature"]
        assert is_genuine(secret, signature, body)
        assert not is_genuine(secret, signature, body + b" ")
        assert not is_genuine(secret, re.sub(r"t=\d", "t=0", signature), body)
        assert not is_genuine("whsec-other", signature, body)
        assert not is_genuine(secret, "nonsense", body)
        old = sign(secret, body, int(time.time()) - 301)
        assert not is_genuine(secret, old, body)
        row = await webhook_row(server.database, "delivered")
        assert (row["attempts"], row["body"]) == (1, "")


async def test_each_key_has_its_own_signing_secret(gateway_server: GatewayServers) -> None:
    async with gateway_server(**SETTINGS) as server:
        other = await make_key(server.database, "other")
        secrets = []
        for secret in (server.secret, other):
            async with server.client(secret) as http:
                secrets += [(await http.get("/v1/webhooks/secret")).json()["secret"] for _ in range(2)]
    assert secrets[0] == secrets[1] != secrets[2] == secrets[3]
    assert WEBHOOK_SECRET not in secrets


async def test_without_a_deployment_secret_webhooks_are_refused(gateway_server: GatewayServers) -> None:
    async with gateway_server() as server:
        answer = await ask(server, "https://example.com/done")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "webhook")
        assert "FAREBOX_WEBHOOK_SECRET" in answer.json()["detail"]
        async with server.client() as http:
            assert (await http.get("/v1/webhooks/secret")).status_code == 400


async def test_a_caller_without_money_is_told_at_once(gateway_server: GatewayServers, receiver: Receiver) -> None:
    async with gateway_server(script=SCRIPT, **SETTINGS) as server:
        terms = KeyTerms(limits=(Limit(LimitKind.TOTAL, Picodollars(1)),))
        poor = await make_key(server.database, "poor", terms)
        answer = await ask(server, receiver.url, secret=poor)
        assert (answer.status_code, answer.json()["error"]["code"]) == (402, "insufficient_funds")
        assert await rows(server.database, "webhooks") == []
    assert receiver.calls.empty()


async def test_a_full_queue_is_told_at_once(gateway_server: GatewayServers, receiver: Receiver) -> None:
    async with gateway_server(script=SCRIPT, **SETTINGS) as server:
        answer = await ask(server, receiver.url, "no room")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_overloaded")
        assert await rows(server.database, "webhooks") == []


async def test_a_failed_generation_is_delivered_as_failed_and_costs_nothing(
    gateway_server: GatewayServers, receiver: Receiver
) -> None:
    async with gateway_server(script=SCRIPT, **SETTINGS) as server:
        assert (await ask(server, receiver.url, "please fail")).status_code == 200
        document = await receiver.document()
        (entry,) = await server.entries()
    assert document["inference_status"]["status"] == "failed"
    assert document["error"]["code"] == "engine_error"
    assert document["results"] == []
    assert (entry["state"], entry["reason"], entry["cost"]) == ("void", "engine_error", 0)
    assert document["inference_status"]["cost"] == 0
    assert document["inference_status"]["tokens_generated"] == 2


@pytest.mark.parametrize("refusals", [[500, 503], [404], [0], [307]], ids=["errors", "absent", "silent", "redirect"])
async def test_a_call_that_is_not_taken_is_repeated(
    gateway_server: GatewayServers, receiver: Receiver, refusals: list[int]
) -> None:
    receiver.statuses = [*refusals, 204]
    async with gateway_server(script=SCRIPT, **SETTINGS | {"webhook_timeout_seconds": 0.3}) as server:
        await ask(server, receiver.url)
        calls = [await receiver.call() for _ in [*refusals, 204]]
        row = await webhook_row(server.database, "delivered")
        metric = server.gateway.metrics.registry.get_sample_value
        assert metric("farebox_webhooks_total", {"outcome": "retried"}) == len(refusals)
    assert len({body for _, body in calls}) == 1
    assert row["attempts"] == len(calls)
    assert receiver.elsewhere == 0


async def test_a_call_is_given_up_after_the_last_attempt(gateway_server: GatewayServers, receiver: Receiver) -> None:
    receiver.statuses = [500]
    async with gateway_server(script=SCRIPT, **SETTINGS | {"webhook_attempts": 3}) as server:
        await ask(server, receiver.url)
        row = await webhook_row(server.database, "given_up")
    assert (row["attempts"], receiver.calls.qsize()) == (3, 3)
    assert "500" in row["last_error"]


def test_pauses_grow_to_the_largest() -> None:
    settings = WebhookSettings(pause_seconds=5, pause_seconds_max=60)
    assert [settings.pause_ms(attempts) for attempts in range(1, 6)] == [5000, 15000, 45000, 60000, 60000]
    assert settings.pause_ms(100) == 60000


async def test_a_call_survives_a_restart(gateway_server: GatewayServers, receiver: Receiver) -> None:
    receiver.statuses = [500]
    async with gateway_server(script=SCRIPT, **SETTINGS | {"webhook_pause_seconds": 1.0}) as server:
        request_id = (await ask(server, receiver.url)).json()["request_id"]
        await receiver.call()
        await webhook_row(server.database, "pending")
    receiver.statuses = [200]
    async with gateway_server(script=SCRIPT, **SETTINGS) as server:
        document = await receiver.document()
        row = await webhook_row(server.database, "delivered")
    assert document["request_id"] == request_id
    assert document["results"] == [{"generated_text": "Hello you"}]
    assert row["attempts"] >= 2  # on a busy machine the first gateway tries more than once


async def test_a_shutdown_waits_for_a_generation_and_keeps_its_result(
    gateway_server: GatewayServers, receiver: Receiver
) -> None:
    slow = Script(requests=(RequestScript((emit("one"), *SCRIPT.requests[3].steps)),))
    async with gateway_server(script=slow, **SETTINGS) as server:
        await ask(server, receiver.url)
    async with gateway_server(**SETTINGS):
        document = await receiver.document()
    assert document["results"] == [{"generated_text": "oneHello you"}]


async def test_what_a_shutdown_cuts_off_costs_nothing_and_is_delivered_as_failed(
    gateway_server: GatewayServers, receiver: Receiver
) -> None:
    async with gateway_server(script=SCRIPT, shutdown_seconds=0.1, **SETTINGS) as server:
        assert (await ask(server, receiver.url, "please hang")).status_code == 200
        await generated(server, 2)
    async with gateway_server(script=SCRIPT, **SETTINGS) as server:
        document = await receiver.document()
        (entry,) = await server.entries()
    assert document["error"]["code"] == "shutting_down"
    assert (entry["state"], entry["reason"], entry["cost"]) == ("void", "shutdown", 0)
    assert document["inference_status"]["cost"] == 0


async def generated(server: GatewayServer, tokens: int) -> None:
    """Return once the running generation has given this many tokens."""
    async with asyncio.timeout(SECONDS_MAX):
        while not any(one.counts.completion >= tokens for engine in server.engines for one in engine.running):
            await asyncio.sleep(0.01)


async def test_a_killed_process_is_settled_and_its_webhook_delivered_as_failed(
    gateway_server: GatewayServers, receiver: Receiver, tmp_path: Path
) -> None:
    """`kill -9` in the middle of a generation; the next process on the same database keeps the promise."""
    script = '{"request": [{"steps": [{"emit": "one two three"}, {"hang": true}]}]}'
    key = "a-key-that-both-processes-know"
    with start_server(
        tmp_path,
        FAREBOX_DATA_DIR=str(tmp_path),
        FAREBOX_SOURCE=f"scripted:{script}",
        FAREBOX_BOOTSTRAP_KEY=key,
        FAREBOX_WEBHOOK_SECRET=WEBHOOK_SECRET,
        FAREBOX_WEBHOOK_ALLOW_PRIVATE="true",
    ) as victim:
        await asyncio.to_thread(victim.wait_until_ready)
        async with victim.async_client() as http:
            body = {"input": "a b", "webhook": receiver.url}
            queued = (await http.post(URL, json=body)).json()
        database = f"sqlite:///{tmp_path / 'farebox.db'}"
        await checkpointed(database, 3)
        os.killpg(victim.process.pid, signal.SIGKILL)
        await asyncio.to_thread(victim.process.wait)
        assert receiver.calls.empty()
    async with gateway_server(bootstrap_key=key, **SETTINGS) as server:
        document = await receiver.document()
        (entry,) = await server.entries()
    assert document["request_id"] == queued["request_id"] == entry["request_id"]
    assert document["inference_status"]["status"] == "failed"
    assert document["error"]["code"] == "interrupted"
    assert (entry["outcome"], entry["completion_tokens"]) == ("interrupted", 3)
    assert document["inference_status"]["tokens_generated"] == 3
    assert document["inference_status"]["cost"] == entry["cost"] / 10**12


async def checkpointed(url: str, tokens: int) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while [row["completion_tokens"] for row in await rows(url, "reservations")] != [tokens]:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/x",
        "file:///etc/passwd",
        "example.com",
        "https://",
        "https://user:password@example.com/",
        "http://127.0.0.1/",
        "http://localhost:8000/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:10.0.0.1]/",
        "http://exa mple.com/",
        "http://example.com:99999/",
        "x" * 3000,
    ],
)
async def test_urls_that_lead_inside_are_refused_at_once(gateway_server: GatewayServers, url: str) -> None:
    async with gateway_server(webhook_secret=WEBHOOK_SECRET) as server:
        answer = await ask(server, url)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "webhook")
        assert await server.entries() == []


@pytest.mark.parametrize("host", ["inside.test", "2130706433", "0x7f.1"])
async def test_a_name_that_leads_inside_is_never_connected_to(
    gateway_server: GatewayServers, receiver: Receiver, host: str
) -> None:
    """The name looks public when it is checked first, and resolves to loopback when it is called."""
    asked: list[str] = []

    async def resolve(name: str, port: int) -> Sequence[str]:
        asked.append(name)
        return ["127.0.0.1", "::1"]

    settings = SETTINGS | {"webhook_allow_private": False, "webhook_attempts": 2}
    port = receiver.url.rpartition(":")[2]
    async with gateway_server(script=SCRIPT, resolve=resolve, **settings) as server:
        assert (await ask(server, f"http://{host}:{port}")).status_code == 200
        row = await webhook_row(server.database, "given_up")
    assert "no public address" in row["last_error"]
    assert len(asked) == row["attempts"] == 2
    assert receiver.calls.empty()

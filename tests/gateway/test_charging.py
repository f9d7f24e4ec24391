"""Each row of the charging table, on every route that generates and on both stores, with the scripted engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from engine.script import HANG, RequestScript, Script, Step, emit, fail
from gateway.routes.endpoint import Generating
from pricing.balance import Limit, LimitKind
from pricing.keys import KeyTerms
from pricing.money import parse_usd
from pricing.price import Price
from tests.gateway.conftest import GatewayServer, GatewayServers, make_key
from tests.postgres import PostgresServer

MINI = "example/mini-embedder"
CARDS = f"""
[[model]]
name = "{MINI}"
task = "embed"
source = "example/mini-embedder"
context_length = 64
default_max_tokens = 1
profile = "llama3-turbo"
price = {{ input = "0.59", output = "0" }}

[[model]]
name = "example/chat"
source = "example/chat"
context_length = 4096
default_max_tokens = 16
profile = "llama3-turbo"
price = {{ input = "0.59", output = "0.79", cached_input = "0.059" }}
"""
CHAT = "example/chat"
PRICE = Price.per_million(input="0.59", output="0.79", cached_input="0.059")
CACHED = 2  # of every prompt
WORDS = "one two three"


@dataclass(frozen=True)
class Route:
    """`prompt` is the tokens of what `body` says."""

    path: str
    body: Callable[[str], dict[str, object]]
    prompt: int
    streams: bool = True


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


ROUTES = {
    "chat": Route("/v1/chat/completions", lambda text: {"model": CHAT, "messages": _messages(text)}, 4),
    "completions": Route("/v1/completions", lambda text: {"model": CHAT, "prompt": text}, 3),
    "native": Route(f"/v1/inference/{CHAT}", lambda text: {"input": text}, 3),
    "messages": Route("/v1/messages", lambda text: {"model": CHAT, "messages": _messages(text), "max_tokens": 16}, 4),
    "responses": Route("/v1/responses", lambda text: {"model": CHAT, "input": text}, 4),
    "embeddings": Route("/v1/embeddings", lambda text: {"model": MINI, "input": text}, 3, streams=False),
}
STREAMS = [name for name, route in ROUTES.items() if route.streams]
PROMPT = "a short prompt"


def tokens_cost(route: Route, completion: int) -> int:
    cached = 0 if route.path == "/v1/embeddings" else CACHED
    return (route.prompt - cached) * PRICE.input + cached * PRICE.cached_input + completion * PRICE.output


Serve = Callable[..., contextlib.AbstractAsyncContextManager[GatewayServer]]


@pytest.fixture(params=["sqlite", "postgresql"])
def serve(request: pytest.FixtureRequest, gateway_server: GatewayServers, tmp_path: Path) -> Serve:
    """A gateway on either store, whose engines play these steps."""
    store: dict[str, object] = {}
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        store["database_url"] = asyncio.run(postgres.copy("template_farebox"))
    cards = tmp_path / "cards.toml"
    cards.write_text(CARDS)

    @contextlib.asynccontextmanager
    async def serving(*steps: Step, seats: int | None = None, **settings: object) -> AsyncIterator[GatewayServer]:
        script = Script((RequestScript(steps, cached=CACHED),), max_num_seqs=seats)
        options = {"shutdown_seconds": 0.1} | store | settings
        async with gateway_server(script, cards=(CHAT, MINI), card_files=[cards], **options) as server:
            yield server

    return serving


def ask(client: httpx.AsyncClient, route: Route, stream: bool) -> "asyncio.Task[httpx.Response]":
    more = {"stream": True} if stream else {}
    return asyncio.create_task(client.post(route.path, json=route.body(PROMPT) | more))


async def running(server: GatewayServer, requests: int, completion: int = 0) -> None:
    """Return once the engines have this many requests, each with this many tokens."""
    async with asyncio.timeout(20):
        while (
            sum(one.counts.completion >= completion for engine in server.engines for one in engine.running) < requests
        ):
            await asyncio.sleep(0.005)


async def leave(server: GatewayServer, *asking: "asyncio.Task[httpx.Response]") -> None:
    """The clients close their connections; return once that was taken note of."""
    before = server.gateway.pipeline.running
    for task in asking:
        task.cancel()
    async with asyncio.timeout(20):
        while server.gateway.pipeline.running > before - len(asking):
            await asyncio.sleep(0.005)


async def only_entry(server: GatewayServer) -> dict[str, object]:
    (entry,) = await server.entries()
    return entry


def charged(entry: dict[str, object]) -> tuple[object, object, object]:
    return entry["state"], entry["outcome"], entry["cost"]


def uncharged(entry: dict[str, object]) -> tuple[object, object, object, object]:
    return entry["state"], entry["reason"], entry["cost"], entry["completion_tokens"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
@pytest.mark.parametrize("name", ROUTES)
async def test_finished_costs_all_tokens(serve: Serve, name: str, stream: bool) -> None:
    route = ROUTES[name]
    stream = stream and route.streams
    async with serve(emit(WORDS)) as server, server.client() as client:
        answer = await ask(client, route, stream)
        assert answer.status_code == 200, answer.text
        completion = 3 if route.streams else 0
        assert charged(await only_entry(server)) == ("settled", "finished", tokens_cost(route, completion))


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
@pytest.mark.parametrize("name", STREAMS)
async def test_leaving_after_the_first_token_costs_what_was_generated(serve: Serve, name: str, stream: bool) -> None:
    route = ROUTES[name]
    async with serve(emit(WORDS), HANG) as server, server.client() as client:
        asking = ask(client, route, stream)
        await running(server, 1, completion=3)
        await leave(server, asking)
        assert not any(engine.running for engine in server.engines)
        assert charged(await only_entry(server)) == ("settled", "client_gone", tokens_cost(route, 3))


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
@pytest.mark.parametrize("name", ROUTES)
async def test_leaving_before_the_first_token_costs_the_whole_prompt_at_its_full_price(
    serve: Serve, name: str, stream: bool
) -> None:
    route = ROUTES[name]
    async with serve(HANG) as server, server.client() as client:
        asking = ask(client, route, stream and route.streams)
        await running(server, 1)
        await leave(server, asking)
        entry = await only_entry(server)
    assert charged(entry) == ("settled", "client_gone", route.prompt * PRICE.input)
    assert (entry["prompt_tokens"], entry["cached_tokens"], entry["completion_tokens"]) == (route.prompt, 0, 0)


@pytest.mark.parametrize("name", ROUTES)
async def test_leaving_a_queue_costs_nothing_but_stays_counted_against_the_tokens_per_minute(
    serve: Serve, name: str
) -> None:
    route = ROUTES[name]
    async with serve(HANG, seats=1) as server:
        secret = await make_key(server.database, "limited", KeyTerms(tokens_per_minute=40))
        async with server.client() as client, server.client(secret) as limited:
            first = ask(client, route, False)
            await running(server, 1)
            own: dict[str, dict[str, int]] = {"embeddings": {}, "native": {"max_new_tokens": 16}, "responses": {}}
            more = own.get(name, {"max_tokens": 16})
            worst = route.prompt + (16 if route.streams else 0)
            asking = asyncio.create_task(limited.post(route.path, json=route.body(PROMPT) | more))
            await running(server, 2)
            await leave(server, asking)
            assert uncharged(await only_entry(server)) == ("void", "client_gone", 0, 0)
            limits = (await limited.get("/v1/me/rate_limit")).json()["data"]
            assert [one["remaining"] for one in limits if one["kind"] == "tokens_per_minute"] == [40 - worst]
            await leave(server, first)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize(
    ("step", "outcome", "settings"),
    [(fail("broken"), "engine_error", {}), (HANG, "timed_out", {"request_timeout_seconds": 0.5})],
    ids=["engine error", "time limit"],
)
async def test_a_stream_that_fails_costs_the_prompt_and_what_was_sent(
    serve: Serve, name: str, step: Step, outcome: str, settings: dict[str, object]
) -> None:
    route = ROUTES[name]
    async with serve(emit(WORDS), step, **settings) as server, server.client() as client:
        answer = await ask(client, route, stream=True)
        code = {"engine_error": "engine_error", "timed_out": "deadline_exceeded"}[outcome]
        assert (answer.status_code, code in answer.text) == (200, True)
        assert charged(await only_entry(server)) == ("settled", outcome, tokens_cost(route, 3))


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_a_shutdown_cuts_off_costs_the_prompt_and_what_was_sent(serve: Serve, name: str) -> None:
    route = ROUTES[name]
    body = route.body(PROMPT) | {"stream": True}
    async with serve(emit(WORDS), HANG) as server, server.client() as client:
        async with client.stream("POST", route.path, json=body) as answer:
            events = answer.aiter_text()
            async for event in events:
                if " three" in event:
                    break
            server.gateway.pipeline.cut_off()
            rest = [event async for event in events]
        assert "shutting_down" in "".join(rest)
        assert charged(await only_entry(server)) == ("settled", "shutdown", tokens_cost(route, 3))


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize(
    ("step", "reason", "status", "settings"),
    [
        (fail("broken"), "engine_error", 500, {}),
        (HANG, "timed_out", 504, {"request_timeout_seconds": 0.5}),
        (HANG, "shutdown", 503, {}),
    ],
    ids=["engine error", "time limit", "shutdown"],
)
async def test_what_was_not_delivered_costs_nothing_and_the_error_does_not_claim_otherwise(
    serve: Serve, name: str, step: Step, reason: str, status: int, settings: dict[str, object]
) -> None:
    route = ROUTES[name]
    async with serve(emit(WORDS), step, **settings) as server, server.client() as client:
        asking = ask(client, route, stream=False)
        if reason == "shutdown":
            await running(server, 1, completion=3 if route.streams else 0)
            server.gateway.pipeline.cut_off()
        answer = await asking
        assert answer.status_code == status
        assert "were charged" not in answer.text
        assert uncharged(await only_entry(server)) == ("void", reason, 0, 0)


async def test_a_failure_before_the_first_token_of_a_stream_costs_nothing(serve: Serve) -> None:
    async with serve(fail("broken")) as server, server.client() as client:
        answer = await ask(client, ROUTES["chat"], stream=True)
        assert answer.status_code == 500
        assert uncharged(await only_entry(server)) == ("void", "engine_error", 0, 0)


async def test_a_slow_reader_pays_for_what_it_was_sent_when_its_stream_is_cut_off(serve: Serve) -> None:
    """It reads nothing: the engine goes on generating, and what lies unsent when the time is over is not charged."""
    flood = "x" * 20_000
    async with serve(emit(f" {flood}" * 500), request_timeout_seconds=2) as server, server.client() as client:
        body = ROUTES["chat"].body(PROMPT) | {"max_tokens": 500}
        async with client.stream("POST", ROUTES["chat"].path, json=body | {"stream": True}):
            async with asyncio.timeout(20):
                while server.gateway.pipeline.running:
                    await asyncio.sleep(0.02)
        entry = await only_entry(server)
        assert entry["outcome"] == "timed_out"
        assert 0 < entry["completion_tokens"] < 500  # type: ignore[operator]  # an integer


async def test_a_reservation_that_is_refused_charges_nobody(serve: Serve) -> None:
    async with serve(emit(WORDS)) as server:
        poor = KeyTerms(limits=(Limit(LimitKind.TOTAL, parse_usd("0.000001")),))
        secret = await make_key(server.database, "poor", poor)
        async with server.client(secret) as client:
            assert (await ask(client, ROUTES["chat"], stream=False)).status_code == 402
        assert await server.entries() == []


COUNTING = Route("/v1/messages/count_tokens", lambda text: {"model": CHAT, "messages": _messages(text)}, 4)


@pytest.mark.parametrize("name", [*ROUTES, "count_tokens"])
async def test_no_handler_is_reached_without_being_admitted(serve: Serve, name: str) -> None:
    async with serve(HANG) as server:
        secret = await make_key(server.database, "limited", KeyTerms(requests_per_minute=0))
        async with server.client(secret) as client:
            assert (await ask(client, ROUTES.get(name, COUNTING), stream=False)).status_code == 429
        assert not any(engine.running for engine in server.engines)


async def not_documented(exchange: object, served: object, body: object) -> None:
    return


def test_a_handler_without_a_documented_body_is_refused_when_the_application_is_made() -> None:
    with pytest.raises(TypeError, match="documented"):
        Generating(not_documented)

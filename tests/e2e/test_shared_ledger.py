"""Two gateway processes on one PostgreSQL: budgets hold between them, and an outage of it loses nothing."""

import asyncio
import csv
import io
import json
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from tests.gateway.redis_server import running_redis
from tests.postgres import PostgresServer
from tests.server import Server, farebox_environment, run_farebox, start_server

MODEL = "farebox/demo"
PRICE_IN, PRICE_OUT = Decimal("0.59") / 10**6, Decimal("0.79") / 10**6
TOKENS = 20
# As many tokens as were asked for, slowly enough that all requests meet.
STEPS = [step for n in range(500) for step in ({"emit": f"w{n}"}, {"sleep": 0.05})]
SCRIPT = "scripted:" + json.dumps({"request": [{"steps": STEPS}]})


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer) -> Iterator[list[Server]]:
    """Two gateways with the same keys and ledger; with the parameter "workers", one of two processes, twice."""
    url = asyncio.run(postgres.copy("template_farebox"))
    settings = {
        "FAREBOX_SOURCE": SCRIPT,
        "FAREBOX_DATABASE_URL": url,
        "FAREBOX_BOOTSTRAP_KEY": f"test-{secrets.token_hex(16)}",
        "FAREBOX_LIMIT_CONCURRENT_REQUESTS": "1000",
    }
    with ExitStack() as stack:
        if getattr(request, "param", "") == "workers":
            redis = stack.enter_context(running_redis(tmp_path))
            server = stack.enter_context(
                start_server(tmp_path, **settings, FAREBOX_WORKERS="2", FAREBOX_REDIS_URL=redis.url)
            )
            server.wait_until_ready()
            yield [server, server]
            return
        servers = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            servers.append(stack.enter_context(start_server(folder, **settings)))
        for server in servers:
            server.wait_until_ready()
        yield servers


def chat(max_tokens: int, stream: bool = False) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "go"}], "max_tokens": max_tokens, "stream": stream}


def entries(server: Server) -> list[dict[str, str]]:
    result = server.farebox("usage", "export")
    assert result.returncode == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


@pytest.mark.parametrize("pair", ["gateways", "workers"], indirect=True)
async def test_concurrent_requests_admit_no_more_than_the_money_allows(pair: list[Server]) -> None:
    """200 at once, with money for 50."""
    async with pair[0].async_client() as http:
        usage = (await http.post("/v1/chat/completions", json=chat(1))).json()["usage"]
    price = usage["prompt_tokens"] * PRICE_IN + TOKENS * PRICE_OUT
    made = pair[0].farebox("keys", "create", "poor", "--limit", f"{price * 50:f}", "--json")
    key = json.loads(made.stdout)[0]["key"]

    async with pair[0].async_client(key) as one, pair[1].async_client(key) as two:
        answers = await asyncio.gather(
            *((one, two)[n % 2].post("/v1/chat/completions", json=chat(TOKENS, stream=n % 4 < 2)) for n in range(200))
        )
    assert Counter(answer.status_code for answer in answers) == {200: 50, 402: 150}
    refusal = next(answer for answer in answers if answer.status_code == 402)
    assert refusal.json()["error"]["code"] == "insufficient_funds"
    assert refusal.headers["x-should-retry"] == "false"
    for server in pair:
        assert server.stop() == 0
    rows = await asyncio.to_thread(entries, pair[0])
    spent = sum(Decimal(row["cost_usd"]) for row in rows if row["key_id"] != rows[0]["key_id"])
    assert spent == price * 50


async def test_an_outage_charges_everything_and_serves_nothing_uncharged(
    pair: list[Server], postgres: PostgresServer
) -> None:
    """Running streams finish, new requests get 503 with Retry-After, and all is settled when it returns."""
    outage_seconds = 20
    received: list[Decimal] = []
    refused: list[httpx.Response] = []

    async def stream(http: httpx.AsyncClient) -> None:
        """One stream, begun before the outage and ended within it."""
        answer = await http.post("/v1/chat/completions", json=chat(160, stream=True))
        assert answer.status_code == 200
        events = answer.text.split("\n\n")
        assert events[-2] == "data: [DONE]", events[-2]
        received.append(Decimal(str(json.loads(events[-3].removeprefix("data: "))["usage"]["estimated_cost"])))

    async def knock(http: httpx.AsyncClient) -> None:
        answer = await http.post("/v1/chat/completions", json=chat(2))
        if answer.status_code == 200:
            received.append(Decimal(str(answer.json()["usage"]["estimated_cost"])))
        else:
            refused.append(answer)

    async with pair[0].async_client() as one, pair[1].async_client() as two:
        streams = [asyncio.create_task(stream((one, two)[n % 2])) for n in range(16)]
        await asyncio.sleep(2)
        postgres.stop()
        for _ in range(outage_seconds):
            await asyncio.gather(knock(one), knock(two), asyncio.sleep(1))
        assert (await one.get("/health/ready")).status_code == 503
        await asyncio.gather(*streams)
        served_before_return = len(received)
        postgres.start()
        for http in (one, two):
            while (await http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.2)
        await asyncio.gather(knock(one), knock(two))

    assert served_before_return == 16, "a new request was served while the ledger was away"
    assert len(received) == 18
    assert refused
    for answer in refused:
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "ledger_unavailable"
        assert int(answer.headers["retry-after"]) > 0
    for server in pair:
        assert server.stop() == 0
    rows = await asyncio.to_thread(entries, pair[0])
    charged = [Decimal(row["cost_usd"]) for row in rows if row["state"] != "void"]
    assert sorted(charged) == sorted(received)
    assert {row["state"] for row in rows} <= {"settled", "void"}


def test_a_shared_database_is_migrated_on_purpose(tmp_path: Path, postgres: PostgresServer) -> None:
    asyncio.run(postgres.run("CREATE DATABASE bare"))
    environment = farebox_environment(tmp_path, FAREBOX_DATABASE_URL=postgres.url("bare"), FAREBOX_SOURCE=SCRIPT)
    refused = run_farebox(environment, "serve")
    assert refused.returncode == 2
    assert "farebox db upgrade" in refused.stderr
    assert "Traceback" not in refused.stderr
    upgraded = run_farebox(environment, "db", "upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    assert run_farebox(environment, "db", "check").returncode == 0

"""Every token is charged, exactly, on every way out."""

import asyncio
import json
import time
from decimal import Decimal

import httpx
import pytest

from tests.server import Server

DEMO = "farebox/demo"
# US dollars per million tokens, as on the pages (the 8B page names no price: the shipped card's).
PRICES = {
    DEMO: ("0.59", "0.79"),
    "meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo": ("0.13", "0.40"),
    "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo": ("0.02", "0.03"),
    "meta-llama/Llama-3.3-70B-Instruct-Turbo": ("0.13", "0.38"),
    "meta-llama/Llama-2-70b-chat-hf": ("0.64", "0.80"),
}
LONG = [{"role": "user", "content": "Count from 1 to 100."}]


def exact_cost(model: str, usage: dict[str, int]) -> Decimal:
    price_in, price_out = map(Decimal, PRICES[model])
    return (usage["prompt_tokens"] * price_in + usage["completion_tokens"] * price_out) / 10**6


def spent(server: Server) -> dict[str, Decimal]:
    """What `farebox usage` says, by model."""
    result = server.farebox("usage", "--by", "model", "--json")
    assert result.returncode == 0, result.stderr
    return {row["model"]: Decimal(row["cost_usd"]) for row in json.loads(result.stdout)}


def wait_for_spent(server: Server, model: str, at_least: Decimal) -> Decimal:
    """The ledger's sum once it has moved: settlements are committed in groups, within milliseconds."""
    deadline = time.monotonic() + 20
    while (now := spent(server).get(model, Decimal(0))) < at_least and time.monotonic() < deadline:
        time.sleep(0.2)
    return now


@pytest.fixture(params=["server", "workers"])
def metered(request: pytest.FixtureRequest) -> Server:
    """One process on SQLite, and two workers on PostgreSQL and Redis: the same bill."""
    running: Server = request.getfixturevalue(request.param)
    return running


@pytest.mark.parametrize("model", PRICES)
def test_cost_is_tokens_times_price_and_in_the_ledger(metered: Server, model: str) -> None:
    before = spent(metered).get(model, Decimal(0))
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "temperature": 0}
    with metered.client() as http:
        answer = http.post("/v1/chat/completions", json=body).json()
        stream = http.post("/v1/chat/completions", json=body | {"stream": True}).text
    last = json.loads(stream.split("\n\n")[-3].removeprefix("data: "))
    assert answer["model"] == model
    costs = [Decimal(str(usage["estimated_cost"])) for usage in (answer["usage"], last["usage"])]
    assert costs == [exact_cost(model, answer["usage"]), exact_cost(model, last["usage"])]
    assert costs[0] > 0
    assert wait_for_spent(metered, model, before + sum(costs)) == before + sum(costs)


async def of_vllm(http: httpx.AsyncClient, *names: str) -> int:
    """The sum of some of vLLM's own metrics."""
    lines = (await http.get("/metrics")).text.splitlines()
    values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(tuple(f"{name}{{" for name in names))]
    assert values, "vLLM's metrics are missing from /metrics"
    return int(sum(values))


async def running(http: httpx.AsyncClient) -> int:
    """vLLM's own count of requests that it works on."""
    return await of_vllm(http, "vllm:num_requests_running", "vllm:num_requests_waiting")


async def wait_for_running(http: httpx.AsyncClient, wanted: int) -> None:
    """vLLM's gauges are written once a second."""
    deadline = time.monotonic() + 15
    while await running(http) != wanted and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    assert await running(http) == wanted


GENERATED = ("vllm:generation_tokens_total",)


async def sent_and_settled(server: Server, http: httpx.AsyncClient, body: dict[str, object]) -> int:
    """Sends a request, waits until it is in the ledger and in vLLM's metrics, and gives its prompt's tokens."""
    model, before, counted = str(body["model"]), spent(server), await of_vllm(http, *GENERATED)
    usage = (await http.post("/v1/chat/completions", json=body)).json()["usage"]
    assert wait_for_spent(server, model, before.get(model, Decimal(0)) + exact_cost(model, usage))
    deadline = time.monotonic() + 15
    while await of_vllm(http, *GENERATED) < counted + usage["completion_tokens"] and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return int(usage["prompt_tokens"])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "document"])
async def test_disconnect_charges_generated_tokens_and_stops_the_engine(metered: Server, stream: bool) -> None:
    model = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
    body = {"model": model, "messages": LONG, "max_tokens": 100_000, "ignore_eos": True, "stream": stream}
    async with metered.async_client() as http:
        prompt_tokens = await sent_and_settled(metered, http, body | {"stream": False, "max_tokens": 1})
        before, counted = spent(metered)[model], await of_vllm(http, *GENERATED)
        if stream:
            async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                lines = answer.aiter_lines()
                for _ in range(40):
                    await anext(lines)
                await wait_for_running(http, 1)
        else:
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/v1/chat/completions", json=body, timeout=httpx.Timeout(60, read=1.5))
        await wait_for_running(http, 0)
        generated = await of_vllm(http, *GENERATED) - counted
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": generated}
    assert 15 < generated < 50_000
    assert wait_for_spent(metered, model, before + Decimal("1e-9")) - before == exact_cost(model, usage)


async def test_a_prompt_that_was_abandoned_before_its_first_token_is_paid_in_full(metered: Server) -> None:
    """Else a long prompt could be computed for nothing, and bought afterwards at the cached price."""
    model = "meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo"
    before = (await asyncio.to_thread(spent, metered)).get(model, Decimal(0))
    text = " ".join(f"{n} {n * 7919 % 10007}" for n in range(4000))
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 1, "stream": True}
    async with metered.async_client() as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/v1/chat/completions", json=body, timeout=httpx.Timeout(60, read=0.4))
        abandoned = await asyncio.to_thread(wait_for_spent, metered, model, before + Decimal("1e-9")) - before
        usage = (await http.post("/v1/chat/completions", json=body | {"stream": False})).json()["usage"]
    assert usage["prompt_tokens"] > 10_000
    assert abandoned == usage["prompt_tokens"] * Decimal(PRICES[model][0]) / 10**6


def test_a_refused_request_costs_nothing(metered: Server) -> None:
    before = spent(metered)
    with metered.client() as http:
        assert http.post("/v1/chat/completions", json={"model": DEMO, "messages": LONG, "n": 9}).status_code == 422
        assert http.post("/v1/chat/completions", content=b"{").status_code == 400
    assert spent(metered) == before

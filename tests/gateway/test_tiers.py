"""`service_tier`: what a card offers, what it costs, and how the engine's queue goes by it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.script import RequestScript, Script, emit, sleep
from gateway.models.catalog import CatalogError, load_catalog
from gateway.models.tiers import tier_of
from gateway.settings import Settings
from pricing.keys import KeyTerms
from pricing.money import Picodollars
from pricing.price import Price
from pricing.tier import Tier
from tests.gateway.conftest import GatewayServer, GatewayServers, make_key

MODEL = "acme/tiers"
TIERS = '[model.tiers]\nflex = { discount = "0.5" }\npriority = { surcharge = "1.75" }\n'


def card(extra: str = TIERS, top: str = "") -> str:
    return (
        f'[[model]]\nname = "{MODEL}"\nsource = "demo"\ncontext_length = 512\ndefault_max_tokens = 64\n{top}'
        f'profile = "llama3-turbo"\nprice = {{ input = "0.40", output = "0.80", cached_input = "0.04" }}\n{extra}'
    )


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    (tmp_path / "cards.toml").write_text(card())
    return tmp_path / "cards.toml"


async def say(client: httpx.AsyncClient, route: str = "chat/completions", **fields: object) -> httpx.Response:
    prompt = {"completions": {"prompt": "Hi"}, "responses": {"input": "Hi"}}
    body = prompt.get(route, {"messages": [{"role": "user", "content": "Hi"}]})
    return await client.post(f"/v1/{route}", json={"model": MODEL, **body, **fields})


async def last_entry(server: GatewayServer) -> dict[str, Any]:
    return sorted(await server.entries(), key=lambda row: row["started_at"])[-1]


FACTORS = [("auto", "default", 1.0), ("default", "default", 1.0), ("flex", "flex", 0.5), ("priority", "priority", 1.75)]


@pytest.mark.parametrize("route", ["chat/completions", "completions", "responses"])
@pytest.mark.parametrize(("asked", "used", "factor"), FACTORS)
async def test_a_tier_has_its_price_everywhere(
    gateway_server: GatewayServers, cards: Path, route: str, asked: str, used: str, factor: float
) -> None:
    async with gateway_server(cards=[MODEL], card_files=[cards]) as server, server.client() as client:
        if route == "responses":
            pytest.importorskip("vllm")
        answer = (await say(client, route, service_tier=asked)).json()
        assert answer["service_tier"] == used
        usage = answer["usage"]
        prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
        completion = usage.get("completion_tokens", usage.get("output_tokens"))
        pico = factor * (prompt * 400_000 + completion * 800_000)
        entry = await last_entry(server)
        assert (entry["tier"], entry["cost"]) == (used, pico)
        assert usage["estimated_cost"] == pytest.approx(pico / 1e12)
        assert entry["price_input"] == factor * 400_000
        assert entry["price_cached_input"] == factor * 40_000
        shown = (await client.get(f"/v1/requests/{entry['request_id']}")).json()
        assert shown["tier"] == used
        page = (await client.get("/metrics")).text
        assert f'farebox_cost_usd_total{{model="{MODEL}",tier="{used}"}} {pico / 1e12}' in page


async def test_every_chunk_of_a_stream_names_the_tier(gateway_server: GatewayServers, cards: Path) -> None:
    async with gateway_server(cards=[MODEL], card_files=[cards]) as server, server.client() as client:
        for route in ("chat/completions", "completions"):
            answer = await say(client, route, service_tier="flex", stream=True)
            chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
            assert chunks
            assert {chunk["service_tier"] for chunk in chunks} == {"flex"}


@pytest.mark.parametrize("asked", ["flex", "priority"])
async def test_a_tier_without_a_price_is_refused_with_those_that_there_are(
    gateway_server: GatewayServers, tmp_path: Path, asked: str
) -> None:
    (tmp_path / "plain.toml").write_text(card(""))
    async with gateway_server(cards=[MODEL], card_files=[tmp_path / "plain.toml"]) as server, server.client() as client:
        answer = await say(client, service_tier=asked)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_parameter", "service_tier")
        assert "auto, default." in error["message"]
        assert await server.entries() == []


async def test_a_key_may_have_a_tier_that_auto_means(gateway_server: GatewayServers, cards: Path) -> None:
    async with gateway_server(cards=[MODEL], card_files=[cards]) as server:
        secret = await make_key(server.database, "slow", KeyTerms(tier=Tier.FLEX))
        async with server.client(secret) as client:
            tiers = [
                (await say(client, **fields)).json()["service_tier"]
                for fields in ({}, {"service_tier": "auto"}, {"service_tier": "default"})
            ]
        assert tiers == ["flex", "flex", "default"]


def test_a_keys_tier_is_no_obstacle_where_the_model_has_none() -> None:
    price = Price.per_million("1", "1")
    assert tier_of("m", {Tier.DEFAULT: price}, None, Tier.PRIORITY) is Tier.DEFAULT


async def test_what_waits_goes_by_tier(gateway_server: GatewayServers, cards: Path) -> None:
    """One seat: the first holds it, and of those that wait the best tier is next, whoever came first."""
    script = Script(requests=(RequestScript((sleep(0.05), emit("ok"))),), max_num_seqs=1)
    async with gateway_server(script, cards=[MODEL], card_files=[cards]) as server, server.client() as client:
        ended: list[str] = []

        async def ask(tier: str) -> None:
            await say(client, service_tier=tier)
            ended.append(tier)

        tasks = []
        for number, tier in enumerate(["default", "flex", "flex", "default", "priority"], start=1):
            tasks.append(asyncio.create_task(ask(tier)))
            while len(server.engines[0].running) < number:
                await asyncio.sleep(0.001)
        page = (await client.get("/metrics")).text
        assert f'farebox_requests_waiting{{model="{MODEL}",tier="flex"}} 2.0' in page
        assert f'farebox_oldest_waiting_seconds{{model="{MODEL}",tier="flex"}} 0.0\n' not in page
        await asyncio.gather(*tasks)
        assert ended == ["default", "priority", "default", "flex", "flex"]


async def test_the_models_page_tells_the_tiers(gateway_server: GatewayServers, cards: Path) -> None:
    async with gateway_server(cards=[MODEL], card_files=[cards]) as server, server.client() as client:
        tiers = (await client.get(f"/v1/models/{MODEL}")).json()["metadata"]["tiers"]
        assert {name: price["input_tokens"] for name, price in tiers.items()} == {
            "default": 0.4,
            "flex": 0.2,
            "priority": 0.7,
            "batch": 0.2,
        }
        page = (await client.get(f"/models/{MODEL}")).json()
        asked = page["schemas"]["openai"]["input"]["properties"]["service_tier"]["enum"]
        assert asked == ["auto", "default", "flex", "priority", None]


WRONG = [
    ('[model.tiers]\nflex = { discount = "1.5" }\n', "", "from 0 to 1"),
    ('[model.tiers]\npriority = { surcharge = "0.75" }\n', "", "1.75 for three quarters more"),
    ("[model.tiers]\nflex = {}\n", "", "either a discount"),
    ('[model.tiers]\nflex = { discount = "0.5", surcharge = "2" }\n', "", "either a discount"),
    ('[model.tiers]\nbatch = { discount = "0.5" }\n', "", "tiers.batch"),
    ('[model.tiers]\nflex = { discount = "0.000003" }\n', "", "no whole number of picodollars"),
    ("", 'batch_discount = "1.5"\n', "batch_discount"),
    ("", 'batch_discount = "0.0000001"\n', "batch_discount"),
    ("", 'batch_discount = "0.000003"\n', "no whole number of picodollars"),
]


@pytest.mark.parametrize(("extra", "top", "said"), WRONG)
def test_a_card_with_a_wrong_tier_stops_the_start(tmp_path: Path, extra: str, top: str, said: str) -> None:
    (tmp_path / "wrong.toml").write_text(card(extra, top))
    settings = Settings.model_validate({"models": MODEL, "cards": str(tmp_path / "wrong.toml")})
    with pytest.raises(CatalogError, match=said):
        load_catalog(settings)


def test_batches_cost_half_unless_the_card_says_otherwise(tmp_path: Path) -> None:
    prices = {}
    for name, top in (("usual", ""), ("fifth", 'batch_discount = "0.2"\n'), ("full", 'batch_discount = "0"\n')):
        (tmp_path / "cards.toml").write_text(card("", top))
        settings = Settings.model_validate({"models": MODEL, "cards": str(tmp_path / "cards.toml")})
        prices[name] = load_catalog(settings).get(MODEL).prices[Tier.BATCH].output  # type: ignore[union-attr]
    assert prices == {"usual": 400_000, "fifth": 640_000, "full": 800_000}


def test_a_price_that_half_of_is_no_whole_number_is_rounded_down_where_the_card_says_nothing() -> None:
    from gateway.models.tiers import tier_prices

    odd = Price(Picodollars(3), Picodollars(5), Picodollars(1))
    assert tier_prices(odd, {}, None)[Tier.BATCH] == Price(Picodollars(1), Picodollars(2), Picodollars(0))

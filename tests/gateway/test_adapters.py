"""`/admin/adapters` with a scripted engine: restarts, replicas, and what is refused."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.adapters import Adapter
from engine.base import EngineSpec
from engine.errors import AdapterError
from engine.script import Script
from engine.scripted import ScriptedEngine
from gateway.models.catalog import CatalogError, load_catalog
from gateway.settings import Settings
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers, rows

ADMIN = f"admin-{secrets.token_hex(16)}"
OWL: dict[str, Any] = {"name": "acme/owl", "base": DEMO, "adapter": "/adapters/owl", "price": {"of_base": "1.5"}}


class Picky(ScriptedEngine):
    async def load_adapter(self, adapter: Adapter) -> None:
        if "bad" in adapter.source:
            raise AdapterError(f'The adapter "{adapter.name}" doesn\'t fit its base: it is bad.')
        await super().load_adapter(adapter)


@asynccontextmanager
async def administered(
    gateway_server: GatewayServers, **settings: Any
) -> AsyncIterator[tuple[GatewayServer, httpx.AsyncClient]]:
    async with gateway_server(engine=Picky, admin_key=ADMIN, **settings) as server, server.client(ADMIN) as admin:
        yield server, admin


async def ask(server: GatewayServer, model: str) -> httpx.Response:
    async with server.client() as client:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
        return await client.post("/v1/chat/completions", json=body)


async def test_an_adapter_is_on_every_replica_and_after_a_restart(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (one, admin):
        async with administered(gateway_server) as (other, _):
            added = await admin.post("/admin/adapters", json=OWL)
            assert added.status_code == 201, added.text
            assert (await ask(one, OWL["name"])).status_code == 200
            await other.gateway.adapters.refresh()
            assert (await ask(other, OWL["name"])).status_code == 200
            assert list(other.engines[0].adapters) == [added.json()["id"]]
        entries = [entry for entry in await one.entries() if entry["model"] == OWL["name"]]
        base = one.gateway.catalog.get(DEMO)
        assert base is not None
        assert [entry["price_input"] * 2 for entry in entries] == [base.price.input * 3] * 2
    async with administered(gateway_server) as (again, admin):
        await again.gateway.adapters.refresh()
        assert (await ask(again, OWL["name"])).status_code == 200
        assert (await admin.get("/admin/adapters")).json()["data"] == [added.json()]
        removed = await admin.delete(f"/admin/adapters/{added.json()['id']}")
        assert removed.json() == added.json()
        assert (await ask(again, OWL["name"])).status_code == 404
        assert (await admin.delete(f"/admin/adapters/{added.json()['id']}")).status_code == 404
        actions = [record["action"] for record in (await admin.get("/admin/audit")).json()["data"]]
        assert actions[:2] == ["adapter.remove", "adapter.add"]
        new = await admin.post("/admin/adapters", json=OWL)
        assert new.json()["id"] > added.json()["id"]  # an id is one adapter's for ever


async def test_one_that_a_replica_cannot_load_is_told_there_and_the_rest_is_served(
    gateway_server: GatewayServers, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway_server(admin_key=ADMIN) as one, one.client(ADMIN) as admin:
        bad = {**OWL, "name": "acme/bad", "adapter": "/bad"}
        assert [(await admin.post("/admin/adapters", json=body)).status_code for body in (bad, OWL)] == [201, 201]
    async with administered(gateway_server) as (other, _):
        for _ in range(2):
            await other.gateway.adapters.refresh()
        assert (await ask(other, OWL["name"])).status_code == 200
        assert (await ask(other, "acme/bad")).status_code == 404
    assert caplog.text.count("an adapter is not served here") == 1


@pytest.mark.parametrize(
    ("change", "status", "param", "words"),
    [
        ({"adapter": "/bad"}, 422, "adapter", "doesn't fit its base"),
        ({"base": "acme/nothing"}, 422, "base", f"It serves {DEMO}"),
        ({"name": DEMO}, 409, None, "There is a model card"),
        ({"name": " acme"}, 422, None, "no spaces around"),
        ({"price": {"of_base": "0.0000001"}}, 422, "price", "at most 6 decimals"),
        ({"price": {"of_base": "NaN"}}, 422, "price", "a number from 0 to 100"),
        ({"price": {"of_base": "1.000001"}}, 422, "price", "which the ledger can't count"),
        ({"price": {"input": "1"}}, 422, "price", "price"),
        ({"account_id": 4711}, 404, None, "4711"),
        ({"rank": 8}, 422, "rank", "rank"),
    ],
)
async def test_what_cannot_be_is_refused_and_leaves_nothing(
    gateway_server: GatewayServers, change: dict[str, Any], status: int, param: str | None, words: str
) -> None:
    async with administered(gateway_server) as (server, admin):
        answer = await admin.post("/admin/adapters", json=OWL | change)
        assert answer.status_code == status, answer.text
        assert words in answer.json()["error"]["message"]
        assert param is None or str(answer.json()["error"]["param"]).startswith(param)
        assert await rows(server.database, "adapters") == []


async def test_two_of_a_name_and_more_than_the_setting_allows(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server, adapters_max=2) as (_, admin):
        names = ["acme/owl", "acme/owl", "acme/two", "acme/three"]
        answers = [await admin.post("/admin/adapters", json=OWL | {"name": name}) for name in names]
    assert [answer.status_code for answer in answers] == [201, 409, 201, 409]
    assert answers[1].json()["error"]["code"] == "already_exists"
    assert "FAREBOX_ADAPTERS_MAX" in answers[3].json()["error"]["message"]


CARD = """
[[model]]
name = "mine"
base = "{base}"
adapter = "./mine"
price = {price}
"""


def test_a_card_of_an_adapter_shares_its_base_s_engine(tmp_path: Path) -> None:
    (tmp_path / "cards.toml").write_text(CARD.format(base=DEMO, price='{ of_base = "1.5" }'))
    settings = Settings.model_validate({"cards": str(tmp_path / "cards.toml"), "models": f"{DEMO},mine"})
    catalog = load_catalog(settings)
    [spec] = catalog.engine_specs
    base, mine = catalog
    assert spec.adapters == (mine.adapter,)
    assert mine.adapter is not None
    assert mine.adapter.source == str(tmp_path / "./mine")
    assert (mine.base, mine.context_length, mine.profile) == (DEMO, base.context_length, base.profile)
    assert mine.price.output * 2 == base.price.output * 3


@pytest.mark.parametrize(
    ("base", "price", "words"),
    [
        ("mine", '{ of_base = "1" }', 'has the base "mine", which must be another card'),
        ("nobody", '{ of_base = "1" }', 'has the base "nobody"'),
        (DEMO, '{ of_base = "many" }', "it must be a number from 0 to 100"),
        (DEMO, '{ of_base = "1", input = "1" }', 'has an unknown field "price.of_base.input"'),
    ],
)
def test_a_wrong_card_of_an_adapter_is_told(tmp_path: Path, base: str, price: str, words: str) -> None:
    (tmp_path / "cards.toml").write_text(CARD.format(base=base, price=price))
    settings = Settings.model_validate({"cards": str(tmp_path / "cards.toml"), "models": "mine"})
    with pytest.raises(CatalogError) as caught:
        load_catalog(settings)
    assert words in str(caught.value)


async def test_a_scripted_engine_has_the_adapters_of_its_spec() -> None:
    adapter = Adapter(7, "acme/owl", "/adapters/owl")
    assert ScriptedEngine(Script(), EngineSpec("scripted:", adapters=(adapter,))).adapters == {7: adapter}

"""Other names of models, and the end of a name: what is shown, billed, told in headers and refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.models.catalog import CatalogError, load_catalog
from gateway.settings import Settings
from pricing.keys import KeyTerms
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers, make_key

CARD = """
[[model]]
name = "{name}"
source = "example/model"
context_length = 64
default_max_tokens = 8
profile = "openai"
price = {{ input = "1", output = "2" }}
"""
CARDS = (
    CARD.format(name="acme/new")
    + CARD.format(name="acme/old")
    + """deprecated = 2026-01-01
sunset = 2999-02-03
replaced_by = "acme/new"
"""
    + CARD.format(name="acme/gone")
    + """deprecated = 2020-01-01
sunset = 2020-02-01
replaced_by = "acme/new"

[[model]]
name = "gpt-claude"
alias_of = "acme/new"
description = "Another name."

[[model]]
name = "going"
alias_of = "acme/new"
deprecated = 2026-05-06

[[model]]
name = "of the unserved"
alias_of = "meta-llama/Llama-2-70b-chat-hf"
"""
)
SERVED = ("acme/new", "acme/old", "acme/gone")
UNIX = {"2026-01-01": 1767225600, "2026-05-06": 1778025600}


@pytest.fixture
async def server(gateway_server: GatewayServers, tmp_path: Path) -> AsyncIterator[GatewayServer]:
    cards = tmp_path / "cards.toml"
    cards.write_text(CARDS)
    async with gateway_server(cards=SERVED, card_files=[cards]) as running:
        yield running


def asking(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}]}


async def test_an_alias_answers_under_its_name_and_is_billed_and_limited_as_its_model(server: GatewayServer) -> None:
    secret = await make_key(server.database, "two", KeyTerms(models=frozenset({"acme/new"})))
    async with server.client(secret) as http:
        answer = await http.post("/v1/chat/completions", json=asking("gpt-claude"))
        assert (answer.status_code, answer.json()["model"]) == (200, "gpt-claude")
        assert "deprecation" not in answer.headers
        refused = await http.post("/v1/chat/completions", json=asking("acme/old"))
    assert refused.status_code == 403
    (entry,) = await server.entries()
    assert entry["model"] == "acme/new"


async def test_names_are_listed_with_their_root_and_their_end(server: GatewayServer) -> None:
    async with server.client() as http:
        listed = {one["id"]: one for one in (await http.get("/v1/models")).json()["data"]}
        entries = {one["model_name"]: one for one in (await http.get("/models/list")).json()}
        one = (await http.get("/v1/models/gpt-claude")).json()
        page = (await http.get("/models/going")).json()
    assert set(listed) == set(entries) == {"acme/new", "acme/old", "gpt-claude", "going"}
    assert one == listed["gpt-claude"]
    assert (one["root"], one["metadata"]["description"]) == ("acme/new", "Another name.")
    old = listed["acme/old"]["metadata"]
    assert (old["deprecated"], old["sunset"], old["replaced_by"]) == ("2026-01-01", "2999-02-03", "acme/new")
    assert "deprecated" not in listed["acme/new"]["metadata"]
    assert (entries["acme/old"]["deprecated"], entries["acme/old"]["replaced_by"]) == (UNIX["2026-01-01"], "acme/new")
    assert page["deprecated"] == UNIX["2026-05-06"]


@pytest.mark.parametrize(
    ("model", "deprecation", "sunset"),
    [
        ("acme/old", "@1767225600", "Sun, 03 Feb 2999 00:00:00 GMT"),
        ("going", "@1778025600", None),
        ("acme/new", None, None),
    ],
)
async def test_answers_tell_of_the_end(
    server: GatewayServer, model: str, deprecation: str | None, sunset: str | None
) -> None:
    async with server.client() as http:
        for body in (asking(model), asking(model) | {"temperature": 7}, asking(model) | {"stream": True}):
            headers = (await http.post("/v1/chat/completions", json=body)).headers
            assert (headers.get("deprecation"), headers.get("sunset")) == (deprecation, sunset)


async def test_after_its_sunset_a_model_names_what_replaces_it(server: GatewayServer) -> None:
    async with server.client() as http:
        answer = await http.post("/v1/chat/completions", json=asking("acme/gone"))
        shown = await http.get("/v1/models/acme/gone")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["detail"] == (
        'The model "acme/gone" is no longer served, since 2020-02-01. Use "acme/new" instead.'
    )
    assert (answer.headers["deprecation"], answer.headers["sunset"]) == ("@1577836800", "Sat, 01 Feb 2020 00:00:00 GMT")
    assert shown.status_code == 404


async def test_an_alias_of_a_model_that_isnt_served_is_unknown(server: GatewayServer) -> None:
    async with server.client() as http:
        answer = await http.post("/v1/chat/completions", json=asking("of the unserved"))
        near = await http.post("/v1/chat/completions", json=asking("gpt-claud"))
    assert answer.status_code == near.status_code == 404
    assert 'Did you mean "gpt-claude"?' in near.json()["detail"]


async def test_a_large_body_may_name_an_alias(server: GatewayServer) -> None:
    body = asking("gpt-claude") | {"metadata": {f"n{number}": "v" for number in range(16)}}
    body["messages"] = [{"role": "user", "content": "hi"}] * 3000
    async with server.client() as http:
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.json()["error"]["code"] == "context_length_exceeded", answer.text


async def test_the_document_lets_aliases_be_named(server: GatewayServer) -> None:
    async with server.client() as http:
        schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    assert schemas["ChatBody"]["properties"]["model"]["enum"] == [*SERVED, "gpt-claude", "going"]


WRONG = [
    ('name = "a"\nalias_of = "nothing"', 'names "nothing", and there is no such model card'),
    (f'name = "a"\nalias_of = "{DEMO}"\nprice = {{}}', 'unknown field "price"'),
    (f'name = "a"\nalias_of = "{DEMO}"\nsunset = 2026-01-01', "need `deprecated`"),
    (f'name = "a"\nalias_of = "{DEMO}"\ndeprecated = 2026-01-02\nsunset = 2026-01-01', "must not come before"),
    (f'name = "a"\nalias_of = "{DEMO}"\ndeprecated = "soon"', 'a wrong "deprecated"'),
]


@pytest.mark.parametrize(("table", "words"), WRONG)
def test_a_wrong_end_stops_the_start(tmp_path: Path, table: str, words: str) -> None:
    cards = tmp_path / "cards.toml"
    cards.write_text(f"[[model]]\n{table}\n")
    with pytest.raises(CatalogError) as caught:
        load_catalog(Settings.model_validate({"cards": str(cards)}))
    assert words in str(caught.value)

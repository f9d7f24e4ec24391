"""`POST .../embeddings`: forms of the input and the answer, refusals, and what it costs, with the scripted engine."""

import base64
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from engine.scripted import DIMENSIONS
from pricing.price import Price
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers

MINI = "example/mini-embedder"
CARD = f"""
[[model]]
name = "{MINI}"
task = "embed"
source = "example/mini-embedder"
context_length = 16
default_max_tokens = 1
profile = "llama3-turbo"
price = {{ input = "0.005", output = "0" }}
"""
PRICE = Price.per_million(input="0.005", output="0")


@pytest.fixture
async def server(gateway_server: GatewayServers, tmp_path: Path) -> AsyncIterator[GatewayServer]:
    cards = tmp_path / "cards.toml"
    cards.write_text(CARD)
    async with gateway_server(cards=(DEMO, MINI), card_files=[cards]) as running:
        yield running


def vector(tokens: int, dimensions: int = DIMENSIONS) -> list[float]:
    """What the scripted engine makes of a prompt."""
    return [float(tokens), *[0.0] * (dimensions - 1)]


async def post(server: GatewayServer, path: str = "/v1/embeddings", **body: Any) -> dict[str, Any]:
    async with server.client() as http:
        answer = await http.post(path, json={"model": MINI, **body})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def refusal(server: GatewayServer, path: str = "/v1/embeddings", **body: Any) -> tuple[int, dict[str, Any]]:
    async with server.client() as http:
        answer = await http.post(path, json={"model": MINI, "input": "a", **body})
    assert await server.entries() == []
    return answer.status_code, answer.json()["error"]


FORMS: list[tuple[Any, list[int]]] = [
    ("one two three", [3]),
    (["one", "one two"], [1, 2]),
    ([7, 8, 9], [3]),
    ([[7], [8, 9]], [1, 2]),
]


@pytest.mark.parametrize(("form", "lengths"), FORMS)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/openai/embeddings"])
async def test_each_input_gets_its_vector_and_prompt_tokens_are_charged(
    server: GatewayServer, path: str, form: Any, lengths: list[int]
) -> None:
    document = await post(server, path, input=form, user="ada")
    assert [(one["index"], one["embedding"]) for one in document["data"]] == [
        (index, vector(length)) for index, length in enumerate(lengths)
    ]
    tokens = sum(lengths)
    cost = tokens * PRICE.input
    assert document["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens, "estimated_cost": cost / 10**12}
    (entry,) = await server.entries()
    assert (entry["request_id"], entry["cost"], entry["end_user"]) == (document["id"], cost, "ada")
    assert (entry["prompt_tokens"], entry["completion_tokens"], entry["outcome"]) == (tokens, 0, "finished")


async def test_base64_holds_little_endian_floats(server: GatewayServer) -> None:
    document = await post(server, input="one two", encoding_format="base64")
    packed = base64.b64decode(document["data"][0]["embedding"])
    assert list(struct.unpack(f"<{DIMENSIONS}f", packed)) == vector(2)


async def test_dimensions_shorten_the_vector(server: GatewayServer) -> None:
    assert (await post(server, input="one", dimensions=3))["data"][0]["embedding"] == vector(1, 3)


async def test_the_sdk_reads_it(server: GatewayServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.secret, max_retries=0) as client:
        answer = await client.embeddings.create(model=MINI, input=["one two", "three"])
    assert [one.embedding for one in answer.data] == [vector(2), vector(1)]
    assert answer.usage.prompt_tokens == 3


async def test_a_model_that_writes_text_is_refused_and_those_that_embed_are_named(server: GatewayServer) -> None:
    status, error = await refusal(server, model=DEMO)
    assert (status, error["code"], error["param"]) == (400, "unsupported_parameter", "model")
    assert error["message"] == f'The model "{DEMO}" can\'t make embeddings. These can: {MINI}.'


async def test_where_no_model_embeds_the_refusal_says_so(gateway_server: GatewayServers) -> None:
    async with gateway_server(cards=(DEMO, LLAMA2)) as server:
        status, error = await refusal(server, model=DEMO)
    assert (status, error["code"]) == (400, "unsupported_parameter")
    assert error["message"] == f'The model "{DEMO}" can\'t make embeddings. No model of this gateway can.'


TEXT_ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
    ("/v1/completions", {"prompt": "hi"}),
    ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}),
    ("/v1/responses", {"input": "hi"}),
    (f"/v1/inference/{MINI}", {"input": "hi"}),
]


@pytest.mark.parametrize(("path", "body"), TEXT_ROUTES)
async def test_a_model_that_embeds_writes_no_text(server: GatewayServer, path: str, body: dict[str, Any]) -> None:
    async with server.client() as http:
        answer = await http.post(path, json={"model": MINI, **body})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_parameter")
    assert "/v1/embeddings" in answer.json()["detail"]


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"input": []}, "input"),
    ({"input": 3}, "input"),
    ({"input": ["a", 3]}, "input"),
    ({"input": ["a"] * 2049}, "input"),
    ({"dimensions": 0}, "dimensions"),
    ({"dimensions": 1.5}, "dimensions"),
    ({"encoding_format": "hex"}, "encoding_format"),
]


@pytest.mark.parametrize(("fields", "param"), INVALID)
async def test_what_is_wrong_is_named(server: GatewayServer, fields: dict[str, Any], param: str) -> None:
    status, error = await refusal(server, **fields)
    assert (status, error["code"], error["param"]) == (422, "invalid_parameter", param)


async def test_an_input_may_fill_the_context_and_no_more(server: GatewayServer) -> None:
    status, error = await refusal(server, input=["fine", "a " * 17])
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "input")
    assert (await post(server, input="a " * 15 + "a"))["usage"]["prompt_tokens"] == 16


async def test_a_token_that_is_not_in_the_vocabulary_is_refused(server: GatewayServer) -> None:
    status, error = await refusal(server, input=[1, 10**9])
    assert (status, error["param"]) == (400, "input")
    assert "1000000000" in error["message"]


async def test_an_idempotency_key_is_charged_once(server: GatewayServer) -> None:
    headers = {"idempotency-key": "once"}
    async with server.client() as http:
        first = await http.post("/v1/embeddings", json={"model": MINI, "input": "hi"}, headers=headers)
        again = await http.post("/v1/embeddings", json={"model": MINI, "input": "hi"}, headers=headers)
    assert again.content == first.content
    assert len(await server.entries()) == 1


async def test_the_catalog_and_the_document_tell_models_that_embed_from_others(server: GatewayServer) -> None:
    async with server.client() as http:
        mini = (await http.get(f"/models/{MINI}")).json()
        demo = (await http.get(f"/models/{DEMO}")).json()
        schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    assert (mini["type"], demo["type"]) == ("embeddings", "text-generation")
    assert mini["schemas"].keys() == {"openai"}
    assert mini["schemas"]["openai"]["path"] == "/v1/openai/embeddings"
    assert schemas["EmbeddingsBody"]["properties"]["model"]["enum"] == [MINI]
    assert schemas["ChatBody"]["properties"]["model"]["enum"] == [DEMO]

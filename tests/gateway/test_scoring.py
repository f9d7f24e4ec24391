"""`POST .../score` and `.../rerank`, with the scripted engine: the score of a pair is its number of words."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pricing.price import Price
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers

RANKER = "example/ranker"
CARD = f"""
[[model]]
name = "{RANKER}"
task = "score"
source = "example/ranker"
context_length = 16
default_max_tokens = 1
profile = "openai"
price = {{ input = "0.005", output = "0" }}
"""
PRICE = Price.per_million(input="0.005", output="0")
SCORE_PATHS = ("/score", "/v1/score", "/v1/openai/score")
RERANK_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank", "/v1/openai/rerank")


@pytest.fixture
async def server(gateway_server: GatewayServers, tmp_path: Path) -> AsyncIterator[GatewayServer]:
    cards = tmp_path / "cards.toml"
    cards.write_text(CARD)
    async with gateway_server(cards=(DEMO, RANKER), card_files=[cards]) as running:
        yield running


async def post(server: GatewayServer, path: str, **body: Any) -> dict[str, Any]:
    async with server.client() as http:
        answer = await http.post(path, json={"model": RANKER, **body})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def refusal(server: GatewayServer, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    async with server.client() as http:
        answer = await http.post(path, json={"model": RANKER, **body})
    assert await server.entries() == []
    return answer.status_code, answer.json()["error"]


FORMS: list[tuple[dict[str, Any], list[int]]] = [
    ({"queries": "a b", "documents": "c"}, [3]),
    ({"queries": "a", "documents": ["b", "c d"]}, [2, 3]),
    ({"text_1": ["a", "a b"], "text_2": ["c", "d e"]}, [2, 4]),
    ({"queries": ["a"], "items": ["b", "c", "d e f"]}, [2, 2, 4]),
    ({"data_1": "a", "data_2": ["b"]}, [2]),
]


@pytest.mark.parametrize(("form", "expected"), FORMS, ids=str)
async def test_each_pair_gets_its_score_and_prompt_tokens_are_charged(
    server: GatewayServer, form: dict[str, Any], expected: list[int]
) -> None:
    document = await post(server, "/v1/score", **form, user="ada")
    assert document["object"] == "list"
    assert document["data"] == [
        {"index": index, "object": "score", "score": score} for index, score in enumerate(expected)
    ]
    tokens, cost = sum(expected), sum(expected) * PRICE.input
    assert document["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens, "estimated_cost": cost / 10**12}
    (entry,) = await server.entries()
    assert (entry["request_id"], entry["cost"], entry["end_user"]) == (document["id"], cost, "ada")
    assert (entry["prompt_tokens"], entry["completion_tokens"], entry["outcome"]) == (tokens, 0, "finished")


async def test_documents_are_ordered_by_their_scores(server: GatewayServer) -> None:
    documents = ["b", "c d e", "f g", "h"]
    whole = await post(server, "/v1/rerank", query="a", documents=documents)
    assert [(one["index"], one["relevance_score"]) for one in whole["results"]] == [(1, 4), (2, 3), (0, 2), (3, 2)]
    assert [one["document"]["text"] for one in whole["results"]] == ["c d e", "f g", "b", "h"]
    assert whole["usage"]["prompt_tokens"] == 11
    best = await post(server, "/v1/rerank", query="a", documents=documents, top_n=2, return_documents=False)
    assert best["results"] == [{"index": 1, "relevance_score": 4}, {"index": 2, "relevance_score": 3}]
    assert best["usage"] == whole["usage"]


@pytest.mark.parametrize("path", [*SCORE_PATHS, *RERANK_PATHS])
async def test_every_path_answers(server: GatewayServer, path: str) -> None:
    body: dict[str, Any] = {"query": "a"} if "rerank" in path else {"queries": "a"}
    document = await post(server, path, documents=["b", "c d"], **body)
    assert len(document["results" if "rerank" in path else "data"]) == 2


WRONG: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("/v1/score", {"queries": "a"}, 422, "queries", "Two sides"),
    ("/v1/score", {"queries": "a", "documents": "b", "text_1": "c"}, 422, "queries", "Two sides"),
    ("/v1/score", {"queries": ["a", "b"], "documents": ["c"]}, 422, "queries", "`documents`, which are 1; got 2"),
    ("/v1/score", {"queries": [], "documents": ["c"]}, 422, "queries", "1 to 2048 texts"),
    ("/v1/rerank", {"query": "a", "documents": ["b"] * 2049}, 422, "documents", "1 to 2048 texts"),
    ("/v1/rerank", {"query": "a", "documents": ["b", 3]}, 422, "documents", "1 to 2048 texts"),
    ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": -1}, 422, "top_n", "0"),
    (
        "/v1/rerank",
        {"query": "a", "documents": ["b"], "max_tokens_per_doc": 5},
        400,
        "max_tokens_per_doc",
        "aren't cut",
    ),
    ("/v1/rerank", {"query": "a", "documents": ["b", "c " * 16]}, 400, "documents", "18 tokens"),
    ("/v1/rerank", {"query": "a", "documents": ["b"], "model": DEMO}, 400, "model", f"These can: {RANKER}."),
    ("/v1/completions", {"prompt": "a"}, 400, "model", "Send it to /v1/score or /v1/rerank"),
    ("/v1/embeddings", {"input": "a"}, 400, "model", "No model of this gateway can"),
]


@pytest.mark.parametrize(("path", "body", "status", "param", "words"), WRONG, ids=lambda value: str(value)[:60])
async def test_what_is_wrong_is_named_and_costs_nothing(
    server: GatewayServer, path: str, body: dict[str, Any], status: int, param: str, words: str
) -> None:
    found, error = await refusal(server, path, **body)
    assert (found, error["param"]) == (status, param)
    assert words in error["message"]


async def test_the_catalog_and_the_document_know_rankers(server: GatewayServer) -> None:
    async with server.client() as http:
        entry = (await http.get(f"/models/{RANKER}")).json()
        schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    assert (entry["type"], entry["schemas"]["openai"]["path"]) == ("reranker", "/v1/openai/rerank")
    assert schemas["RerankBody"]["properties"]["model"]["enum"] == [RANKER]
    assert schemas["DetokenizeBody"]["properties"]["model"]["enum"] == [DEMO, RANKER]

"""`farebox serve MODEL` without a card, on tiny random models of other families, with the real engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server import Server, farebox_environment, run_farebox, start_server
from tests.tiny_models import FAMILIES, make

KEY = "test-" + "f" * 32
SMALL = '{"kv_cache_memory_bytes": 33554432, "max_num_seqs": 4}'
CONVERSES = ("qwen2", "qwen3_moe", "mistral", "gemma")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each family."""
    folder = tmp_path_factory.mktemp("models")
    for name in FAMILIES:
        make(name, folder)
    return folder


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One gateway for all of them but Qwen3, with the cards that `farebox cards new` writes."""
    folder = tmp_path_factory.mktemp("families")
    names = [name for name in FAMILIES if name != "qwen3"]
    made = run_farebox(farebox_environment(folder), "cards", "new", *(str(models / name) for name in names))
    assert made.returncode == 0, made.stderr
    cards = folder / "cards.toml"
    cards.write_text(made.stdout)
    checked = run_farebox(farebox_environment(folder), "cards", "check", str(cards))
    assert "mistral: The card is right" in checked.stdout + checked.stderr or "mistral: It fits" in checked.stdout
    with start_server(
        folder,
        FAREBOX_CARDS=str(cards),
        FAREBOX_MODELS=",".join(names),
        FAREBOX_ENGINE=SMALL,
        FAREBOX_BOOTSTRAP_KEY=KEY,
    ) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def http(served: Server) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


def post(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize("model", CONVERSES)
def test_a_family_answers_conversations_and_goes_on_from_texts(http: httpx.Client, model: str) -> None:
    messages = [{"role": "user", "content": "Hello!"}]
    chat = post(http, "/v1/chat/completions", model=model, messages=messages, max_tokens=5, ignore_eos=True)
    assert chat["usage"]["completion_tokens"] == 5
    text = post(http, "/v1/completions", model=model, prompt="Hello", max_tokens=5, ignore_eos=True, top_k=-1)
    assert text["usage"]["completion_tokens"] == 5
    assert chat["usage"]["estimated_cost"] == text["usage"]["estimated_cost"] == 0


def test_a_model_without_a_template_goes_on_from_texts_and_says_what_conversations_lack(http: httpx.Client) -> None:
    assert post(http, "/v1/completions", model="base", prompt="Hello", max_tokens=3)["choices"][0]["text"] is not None
    refused = http.post("/v1/chat/completions", json={"model": "base", "messages": [{"role": "user", "content": "Hi"}]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")
    assert "no chat template" in refused.json()["detail"]


def test_an_embedder_makes_vectors(http: httpx.Client) -> None:
    found = post(http, "/v1/embeddings", model="embedder", input=["one", "two words"])
    assert [len(one["embedding"]) for one in found["data"]] == [64, 64]


def test_a_reranker_orders_documents_by_the_scores_of_their_pairs(http: httpx.Client) -> None:
    documents = ["paris is a town.", "a fish", "the capital of france is paris."]
    ranked = post(http, "/v1/rerank", model="reranker", query="what is paris?", documents=documents)
    scored = post(http, "/v1/score", model="reranker", queries="what is paris?", documents=documents)
    scores = [one["score"] for one in scored["data"]]
    assert len(set(scores)) == 3
    order = sorted(range(3), key=lambda index: -scores[index])
    assert [one["index"] for one in ranked["results"]] == order
    assert [one["relevance_score"] for one in ranked["results"]] == pytest.approx([scores[i] for i in order], abs=1e-5)
    # [CLS] query [SEP] document [SEP], letter by letter
    first = post(http, "/v1/score", model="reranker", queries="ab", documents="abc")
    assert first["usage"]["prompt_tokens"] == 2 + 3 + 3


def test_tokens_of_a_text_come_back(http: httpx.Client) -> None:
    found = post(http, "/tokenize", model="qwen2", prompt="Hello there", return_token_strs=True)
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert post(http, "/detokenize", model="qwen2", tokens=found["tokens"])["prompt"].endswith("Hello there")
    bare = post(http, "/tokenize", model="qwen2", prompt="Hello there", add_special_tokens=False)
    assert post(http, "/detokenize", model="qwen2", tokens=bare["tokens"])["prompt"] == "Hello there"
    messages = [{"role": "user", "content": "Hello!"}]
    opened = post(http, "/tokenize", model="qwen2", messages=messages)["tokens"]
    closed = post(http, "/tokenize", model="qwen2", messages=messages, add_generation_prompt=False)["tokens"]
    assert opened[: len(closed)] == closed != opened


def test_one_command_serves_a_folder_with_its_parsers_and_a_price(models: Path, tmp_path: Path) -> None:
    with start_server(
        tmp_path,
        str(models / "qwen3"),
        "--price",
        "0.10/0.30/0.05",
        "--context-length",
        "256",
        FAREBOX_ENGINE=SMALL,
        FAREBOX_BOOTSTRAP_KEY=KEY,
    ) as running:
        running.wait_until_ready()
        with running.client() as http:
            (card,) = http.get("/v1/models").json()["data"]
            messages = [{"role": "user", "content": "Hello!"}]
            chat = post(http, "/v1/chat/completions", model="qwen3", messages=messages, max_tokens=4, ignore_eos=True)
    assert (card["id"], card["metadata"]["context_length"]) == ("qwen3", 256)
    assert card["metadata"]["pricing"] == {"input_tokens": 0.1, "output_tokens": 0.3, "cache_read_tokens": 0.05}
    assert chat["usage"]["estimated_cost"] > 0
    for told in ("hermes", "--tool-call-parser", "qwen3", "--reasoning-parser", "256 tokens", "$0.10 in, $0.30 out"):
        assert told in running.output

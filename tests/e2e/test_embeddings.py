"""Embeddings on the real engine: the demo model's weights, which vLLM's pooling runner makes vectors with."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import openai
import pytest

from tests.server import Server, start_server

MODEL = "example/embedder"
HIDDEN_SIZE = 256  # of the demo model, engine/demo/model/config.json
CARD = f"""
[[model]]
name = "{MODEL}"
task = "embed"
source = "demo"
context_length = 512
default_max_tokens = 1
profile = "llama3-turbo"
price = {{ input = "0.01", output = "0" }}
"""


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("embedder")
    cards = folder / "cards.toml"
    cards.write_text(CARD)
    with start_server(
        folder, FAREBOX_CARDS=str(cards), FAREBOX_MODELS=MODEL, FAREBOX_BOOTSTRAP_KEY="test-" + "e" * 32
    ) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def client(embedder: Server) -> Iterator[openai.OpenAI]:
    with embedder.openai() as made:
        yield made


def test_texts_become_unit_vectors_and_are_charged_exactly(embedder: Server, client: openai.OpenAI) -> None:
    texts = ["What is the weather in Paris?", "What's the weather in Paris?", "Count from 1 to 100."]
    answer = client.embeddings.create(model=MODEL, input=texts)
    first, near, far = (one.embedding for one in answer.data)
    assert len(first) == len(near) == len(far) == HIDDEN_SIZE
    assert similarity(first, first) == pytest.approx(1, abs=1e-3)
    assert similarity(first, near) > similarity(first, far)
    cost = answer.usage.prompt_tokens * Decimal("0.01") / 10**6
    assert Decimal(str(answer.usage.estimated_cost)) == cost  # type: ignore[attr-defined]
    with embedder.client() as http:
        recorded = http.get(f"/v1/requests/{answer.id}").json()  # type: ignore[attr-defined]
    assert Decimal(recorded["cost_usd"]) == cost
    assert recorded["usage"]["completion_tokens"] == 0


def similarity(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_numbers_and_base64_are_the_same_vector(client: openai.OpenAI) -> None:
    [numbers] = client.embeddings.create(model=MODEL, input=[[5, 6, 7]], encoding_format="float").data
    [packed] = client.embeddings.create(model=MODEL, input=[5, 6, 7]).data  # the SDK asks for base64 and unpacks it
    assert packed.embedding == pytest.approx(numbers.embedding, abs=1e-6)


def test_what_the_model_cant_do_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="can't be shortened") as caught:
        client.embeddings.create(model=MODEL, input="Hello!", dimensions=64)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "dimensions")
    with pytest.raises(openai.BadRequestError, match="Shorten the prompt"):
        client.embeddings.create(model=MODEL, input="word " * 2000)
    with pytest.raises(openai.BadRequestError, match="makes embeddings and no text"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello!"}])

"""`POST /v1/inference/{model}` on the real engine: the Llama 2 page's route."""

import json
from typing import Any

import pytest

from tests.server import Server

LLAMA2 = "meta-llama/Llama-2-70b-chat-hf"
DEMO = "farebox/demo"


def infer(server: Server, model: str = LLAMA2, **fields: Any) -> dict[str, Any]:
    with server.client() as http:
        answer = http.post(f"/v1/inference/{model}", json={"input": "Hello! How are", **fields})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def events(server: Server, **fields: Any) -> list[dict[str, Any]]:
    body = {"input": "Hello! How are", "stream": True, **fields}
    with server.client() as http:
        answer = http.post(f"/v1/inference/{LLAMA2}", json=body)
    assert answer.status_code == 200, answer.text
    *found, rest = answer.text.split("\n\n")
    assert rest == ""
    return [json.loads(event.removeprefix("data: ")) for event in found]


@pytest.mark.parametrize("model", [LLAMA2, DEMO])
def test_the_result_and_its_cost(server: Server, model: str) -> None:
    document = infer(server, model, max_new_tokens=10, temperature=0)
    status = document["inference_status"]
    price_in, price_out = (0.64, 0.80) if model == LLAMA2 else (0.59, 0.79)
    assert status["status"] == "succeeded"
    assert status["tokens_generated"] == document["num_tokens"] <= 10
    most = (status["tokens_input"] * price_in + status["tokens_generated"] * price_out) / 1e6
    assert 0 < status["cost"] <= most * (1 + 1e-9)  # less where the prefix cache helped
    assert len(document["results"]) == 1


def test_a_streams_tokens_are_the_whole_text(server: Server) -> None:
    whole = infer(server, max_new_tokens=30, temperature=0)
    tokens = events(server, max_new_tokens=30, temperature=0)
    end = tokens[-1]
    assert end["generated_text"] == whole["results"][0]["generated_text"]
    assert "".join(event["token"]["text"] for event in tokens) == end["generated_text"]
    assert len(tokens) == end["details"]["generated_tokens"] == whole["num_tokens"]
    assert all(event["generated_text"] is None and event["details"] is None for event in tokens[:-1])
    assert all(event["token"]["logprob"] <= 0 and event["token"]["id"] > 0 for event in tokens)


def test_an_answer_that_ends_by_itself_ends_with_a_special_token(server: Server) -> None:
    user, assistant = (f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant"))
    chat = f"{user}Hello!<|eot_id|>{assistant}"
    tokens = events(server, input=chat, temperature=0)
    assert tokens[-1]["details"]["finish_reason"] == "stop"
    assert tokens[-1]["token"]["special"] is True
    assert tokens[-1]["token"]["text"] == ""
    assert tokens[-1]["generated_text"]


def test_num_responses_and_seed(server: Server) -> None:
    fields: dict[str, Any] = {"num_responses": 2, "temperature": 2, "top_p": 1, "seed": 7, "max_new_tokens": 8}
    first, again = infer(server, DEMO, **fields), infer(server, DEMO, **fields)
    assert first["results"] == again["results"]
    one, two = (result["generated_text"] for result in first["results"])
    assert one != two
    assert 2 <= first["num_tokens"] <= 16


def test_the_pages_highest_temperature(server: Server) -> None:
    infer(server, temperature=100, max_new_tokens=2)


def test_response_format_makes_json(server: Server) -> None:
    document = infer(server, input="Say something as JSON: ", response_format={"type": "json_object"}, temperature=0)
    text = document["results"][0]["generated_text"]
    assert text.lstrip().startswith("{")


def test_stop_is_not_in_the_text_and_streams_the_same(server: Server) -> None:
    text = infer(server, max_new_tokens=20, temperature=0)["results"][0]["generated_text"]
    stop = text[7:10]
    fields: dict[str, Any] = {"max_new_tokens": 20, "temperature": 0, "stop": [stop]}
    cut = infer(server, **fields)["results"][0]["generated_text"]
    assert cut == text[: text.index(stop)]
    tokens = events(server, **fields)
    assert tokens[-1]["generated_text"] == "".join(event["token"]["text"] for event in tokens) == cut

"""`POST .../chat/completions` through the OpenAI SDK and as raw bytes, on the real engine."""

import json
from typing import Any

import pytest
from openai import OpenAI

from tests.server import Server

DEMO = "farebox/demo"
HELLO: Any = [{"role": "user", "content": "Hello!"}]
CHEF = [
    {"role": "system", "content": "Respond like a michelin starred chef."},
    {"role": "user", "content": "Can you name at least two different techniques to cook lamb?"},
    {
        "role": "assistant",
        "content": "Bonjour! Let me tell you, my friend, cooking lamb is an art form, and I'm more than happy to share "
        "with you not two, but three of my favorite techniques to coax out the rich, unctuous flavors and tender "
        'textures of this majestic protein. First, we have the classic "Sous Vide" method. Next, we have the ancient '
        'art of "Sous le Sable". And finally, we have the more modern technique of "Hot Smoking."',
    },
    {"role": "user", "content": "Tell me more about the second method."},
]


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.openai()


@pytest.mark.parametrize("prefix", ["/v1/chat/completions", "/v1/openai/chat/completions"])
@pytest.mark.parametrize("messages", [HELLO, CHEF], ids=["hello", "conversation"])
def test_the_pages_requests_are_answered(server: Server, prefix: str, messages: list[dict[str, str]]) -> None:
    with server.client() as http:
        answer = http.post(prefix, json={"model": DEMO, "messages": messages, "temperature": 0})
    assert answer.status_code == 200
    document = answer.json()
    assert document["id"].startswith("chatcmpl-")
    assert document["object"] == "chat.completion"
    assert document["model"] == DEMO
    [choice] = document["choices"]
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    assert len(choice["message"]["content"]) > 10
    assert choice["finish_reason"] == "stop"
    usage = document["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_streamed_events_have_the_pages_format(server: Server) -> None:
    body = {"model": DEMO, "messages": HELLO, "stream": True, "temperature": 0}
    with server.client() as http, http.stream("POST", "/v1/openai/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        raw = answer.read().decode()
    events = raw.split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert all(event.startswith("data: {") for event in events)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in chunks[1:])
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1]["choices"][0]["delta"] == {}
    # Without stream_options the usage rides on the chunk that carries finish_reason.
    assert [("usage" in chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_stream_and_document_say_the_same(client: OpenAI) -> None:
    document = client.chat.completions.create(model=DEMO, messages=CHEF, temperature=0)  # type: ignore[arg-type]
    with client.chat.completions.stream(model=DEMO, messages=CHEF, temperature=0) as stream:  # type: ignore[arg-type]
        final = stream.get_final_completion()
    assert final.choices[0].message.content == document.choices[0].message.content
    assert final.choices[0].message.role == "assistant"
    assert document.choices[0].message.content


def test_include_usage_sends_it_openais_way(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=DEMO, messages=HELLO, stream=True, stream_options={"include_usage": True}, temperature=0
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    refused = list(
        client.chat.completions.create(
            model=DEMO, messages=HELLO, stream=True, stream_options={"include_usage": False}, temperature=0
        )
    )
    assert all(chunk.usage is None for chunk in refused)


def test_greedy_answers_repeat(client: OpenAI) -> None:
    answers = {
        client.chat.completions.create(model=DEMO, messages=HELLO, temperature=0).choices[0].message.content
        for _ in range(3)
    }
    assert len(answers) == 1


def test_a_second_turn_knows_the_first(client: OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "My name is Ada."}]
    first = client.chat.completions.create(model=DEMO, messages=messages, temperature=0)  # type: ignore[arg-type]
    messages += [
        {"role": "assistant", "content": first.choices[0].message.content or ""},
        {"role": "user", "content": "What is my name?"},
    ]
    second = client.chat.completions.create(model=DEMO, messages=messages, temperature=0)  # type: ignore[arg-type]
    assert "Ada" in (second.choices[0].message.content or "")


def test_max_tokens_zero_answers_with_no_tokens(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=DEMO, messages=HELLO, max_tokens=0)
    assert answer.choices[0].message.content == ""
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0
    assert answer.usage.prompt_tokens > 0


def test_max_tokens_cuts_the_answer(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=DEMO, messages=HELLO, max_tokens=3, temperature=0)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_models_are_listed_with_their_prices(server: Server) -> None:
    with server.client() as http:
        models = {model["id"]: model for model in http.get("/v1/models").json()["data"]}
        one = http.get("/v1/openai/models/meta-llama/Llama-2-70b-chat-hf").json()
    assert set(models) == {
        DEMO,
        "meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo",
        "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "meta-llama/Llama-2-70b-chat-hf",
    }
    assert one == models["meta-llama/Llama-2-70b-chat-hf"]
    assert one["metadata"]["context_length"] == 4096
    assert one["metadata"]["pricing"]["input_tokens"] == 0.64
    assert one["metadata"]["pricing"]["output_tokens"] == 0.8

"""Routes that count and show tokens, with the scripted engine: a token is a word. They are free, and counted."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.script import Script
from pricing.keys import KeyTerms
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers, make_key

HELLO = [{"role": "user", "content": "hello you"}]


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(script=Script()) as running:
        yield running


async def post(server: GatewayServer, path: str, **body: Any) -> Any:
    async with server.client() as http:
        answer = await http.post(path, json={"model": DEMO, **body})
    assert answer.status_code == 200, answer.text
    assert await server.entries() == []
    return answer.json()


async def test_a_texts_tokens_come_back_as_its_text(server: GatewayServer) -> None:
    found = await post(server, "/tokenize", prompt="one two three", return_token_strs=True)
    assert (found["count"], found["max_model_len"]) == (3, 131072)
    assert found["token_strs"] == ["one", " two", " three"]
    assert (await post(server, "/detokenize", tokens=found["tokens"]))["prompt"] == "one two three"
    assert (await post(server, "/tokenize", prompt="one two three"))["token_strs"] is None
    assert (await post(server, "/detokenize", tokens=[]))["prompt"] == ""


async def test_a_conversation_has_the_tokens_that_an_answer_to_it_is_charged_for(server: GatewayServer) -> None:
    found = await post(server, "/tokenize", messages=HELLO)
    async with server.client() as http:
        answer = (await http.post("/v1/chat/completions", json={"model": DEMO, "messages": HELLO})).json()
    assert found["count"] == len(found["tokens"]) == answer["usage"]["prompt_tokens"]


@pytest.mark.vllm
@pytest.mark.parametrize("prefix", ["/v1", "/v1/openai"])
async def test_a_responses_input_is_counted(server: GatewayServer, prefix: str) -> None:
    found = await post(server, f"{prefix}/responses/input_tokens", input="hello you")
    assert found == {"object": "response.input_tokens", "input_tokens": 3}


async def test_a_rendered_request_has_its_tokens_and_what_the_engine_would_be_told(server: GatewayServer) -> None:
    found = await post(server, "/v1/chat/completions/render", messages=HELLO, temperature=0.5, max_tokens=7, stop="x")
    assert found["token_ids"] == (await post(server, "/tokenize", messages=HELLO))["tokens"]
    asked = {"max_tokens": 7, "temperature": 0.5, "stop": ["x"]}
    assert asked.items() <= found["sampling_params"].items()
    assert "top_p" not in found["sampling_params"]  # it is at its default
    assert found["request_id"].startswith("chatcmpl-")
    several = await post(server, "/v1/completions/render", prompt=["a", "b c"], min_tokens=2)
    assert [len(one["token_ids"]) for one in several] == [1, 2]
    assert {"max_tokens": 16384, "min_tokens": 2}.items() <= several[0]["sampling_params"].items()


WRONG: list[tuple[str, dict[str, Any], int, str]] = [
    ("/tokenize", {}, 422, "prompt"),
    ("/tokenize", {"prompt": "a", "messages": HELLO}, 422, "prompt"),
    ("/tokenize", {"messages": HELLO, "add_special_tokens": True}, 422, "add_special_tokens"),
    ("/tokenize", {"messages": HELLO, "continue_final_message": True}, 422, "continue_final_message"),
    ("/tokenize", {"prompt": "a", "chat_template": "b"}, 400, "chat_template"),
    ("/detokenize", {"tokens": ["a"]}, 422, "tokens"),
    ("/detokenize", {"tokens": [2**30]}, 400, "tokens"),
    ("/detokenize", {"tokens": [1] * 5000, "model": LLAMA2}, 400, "tokens"),
    ("/v1/chat/completions/render", {"messages": HELLO, "temperature": 3}, 422, "temperature"),
    ("/v1/completions/render", {"prompt": "a " * 5000, "model": LLAMA2}, 400, "prompt"),
]


@pytest.mark.parametrize(("path", "body", "status", "param"), WRONG, ids=lambda value: str(value)[:60])
async def test_what_is_wrong_is_named(
    server: GatewayServer, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    async with server.client() as http:
        answer = await http.post(path, json={"model": DEMO, **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


PATHS = ("/tokenize", "/detokenize", "/v1/responses/input_tokens", "/v1/chat/completions/render")


@pytest.mark.parametrize("path", PATHS)
async def test_they_need_a_key_and_count_as_requests(server: GatewayServer, path: str) -> None:
    secret = await make_key(server.database, "once", KeyTerms(requests_per_minute=1))
    async with server.client(secret) as http:
        first = await http.post(path, json={"model": DEMO})
        body = {"model": DEMO, "prompt": "a", "tokens": [1], "input": "a", "messages": HELLO}
        wanted = {"/tokenize": "prompt", "/detokenize": "tokens", "/v1/responses/input_tokens": "input"}
        body = {"model": DEMO, wanted.get(path, "messages"): body[wanted.get(path, "messages")]}
        statuses = [(await http.post(path, json=body)).status_code for _ in range(2)]
    assert first.status_code == 422  # what is wrong isn't counted
    assert statuses == [200, 429]
    async with server.client("fb-" + "0" * 38) as http:
        assert (await http.post(path, json=body)).status_code == 401

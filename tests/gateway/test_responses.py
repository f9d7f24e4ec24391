"""`POST .../responses`: the Responses API's requests, answers and events, and their cost, with the scripted engine."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from engine.script import HANG, RequestScript, Script, Step, emit, fail
from gateway.models.catalog import shipped_cards
from pricing.price import Price
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers

CALL = Step("call", "get_weather", arguments='{"city": "Paris"}')
SCRIPT = Script(
    requests=(
        RequestScript((Step("reason", "let me think"), emit("One moment"), CALL), match="please call"),
        RequestScript((emit("one two"), HANG), match="please hang"),
        RequestScript((emit("x y z"), fail("broken")), match="please fail"),
        RequestScript((emit("Hello there friend"),), cached=2),
    )
)
TOOL: Any = {"type": "function", "name": "get_weather", "description": "Weather.", "parameters": {"type": "object"}}
SAID: Any = {"role": "user", "content": [{"type": "input_text", "text": "please"}]}
ALLOWED: Any = {"type": "allowed_tools", "mode": "required"}
card = next(card for card in shipped_cards() if card.name == DEMO)
PRICE = Price.per_million(input=card.price.input, output=card.price.output)


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(script=SCRIPT) as running:
        yield running


@pytest.fixture
async def client(server: GatewayServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(server) as made:
        yield made


def sdk(server: GatewayServer, prefix: str = "/v1") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server.url + prefix, api_key=server.secret, max_retries=0)


def asking(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": DEMO, "input": text, **fields}


async def refusal(server: GatewayServer, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with server.client() as http:
        answer = await http.post("/v1/responses", json=body)
    assert answer.json()["detail"] == answer.json()["error"]["message"]
    return answer.status_code, answer.json()["error"]


@pytest.mark.parametrize("prefix", ["/v1", "/v1/openai"])
async def test_a_text_is_answered_and_charged(server: GatewayServer, prefix: str) -> None:
    async with sdk(server, prefix) as client:
        response = await client.responses.create(**asking("hi you", user="ada", metadata={"a": "b"}))
    assert response.id.startswith("resp_")
    assert (response.status, response.output_text) == ("completed", "Hello there friend")
    assert (response.model, response.metadata, response.user) == (DEMO, {"a": "b"}, "ada")
    usage = response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (3, 3, 6)
    assert usage.input_tokens_details.cached_tokens == 2
    cost = PRICE.input + 2 * PRICE.cached_input + 3 * PRICE.output
    assert usage.model_extra == {"estimated_cost": cost / 10**12}
    (entry,) = await server.entries()
    assert (entry["request_id"], entry["cost"], entry["prompt_tokens"]) == (response.id, cost, 3)
    assert (entry["route"], entry["end_user"]) == (f"{prefix}/responses", "ada")


async def test_a_stream_tells_the_same_in_numbered_events(server: GatewayServer, client: openai.AsyncOpenAI) -> None:
    events: list[Any] = [event async for event in await client.responses.create(**asking("hi you"), stream=True)]
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 3,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type.endswith("text.delta")) == "Hello there friend"
    final = events[-1].response
    assert final.output_text == "Hello there friend"
    assert final.output[0].id == events[2].item.id == events[4].item_id
    (entry,) = await server.entries()
    assert (entry["request_id"], entry["completion_tokens"]) == (final.id, 3)
    assert final.usage.estimated_cost == entry["cost"] / 10**12  # type: ignore[operator]


async def test_the_sdks_helper_reads_the_stream(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(**asking("please call", tools=[TOOL])) as stream:
        response = await stream.get_final_response()
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_reasoning_text_and_a_call_are_items_and_go_back(client: openai.AsyncOpenAI, streamed: bool) -> None:
    body = asking("please call", tools=[TOOL])
    if streamed:
        events: list[Any] = [event async for event in await client.responses.create(**body, stream=True)]
        response = events[-1].response
    else:
        response = await client.responses.create(**body)
    reasoning, message, call = response.output
    assert reasoning.content[0].text == "let me think"
    assert message.content[0].text == "One moment"
    assert (call.name, json.loads(call.arguments), call.status) == ("get_weather", {"city": "Paris"}, "completed")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}
    asked: Any = {"role": "user", "content": [{"type": "input_text", "text": "please"}]}
    again = await client.responses.create(model=DEMO, input=[asked, *response.output, result], tools=[TOOL])  # type: ignore[list-item]
    assert again.output_text == "Hello there friend"


@pytest.mark.parametrize("streamed", [True, False])
async def test_max_output_tokens_makes_it_incomplete(client: openai.AsyncOpenAI, streamed: bool) -> None:
    body = asking("hi", max_output_tokens=2)
    if streamed:
        *_, last = [event async for event in await client.responses.create(**body, stream=True)]
        assert last.type == "response.incomplete"
        response = last.response
    else:
        response = await client.responses.create(**body)
    assert (response.status, response.output_text) == ("incomplete", "Hello there")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"  # type: ignore[union-attr]


@pytest.mark.parametrize("streamed", [True, False])
async def test_log_probabilities_come_with_the_text(client: openai.AsyncOpenAI, streamed: bool) -> None:
    body = asking("hi", include=["message.output_text.logprobs"], top_logprobs=2)
    if streamed:
        *events, last = [event async for event in await client.responses.create(**body, stream=True)]
        deltas = [event for event in events if event.type == "response.output_text.delta"]
        assert [logprob.token for event in deltas for logprob in event.logprobs] == ["Hello", " there", " friend"]
        response = last.response  # type: ignore[union-attr]
    else:
        response = await client.responses.create(**body)
    logprobs = response.output[0].content[0].logprobs  # type: ignore[union-attr]
    assert logprobs is not None
    assert [(logprob.token, len(logprob.top_logprobs)) for logprob in logprobs] == [
        ("Hello", 2),
        (" there", 2),
        (" friend", 2),
    ]


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"background": True}, "background"),
    ({"store": True}, "store"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"service_tier": "scale"}, "service_tier"),
    ({"tools": [TOOL, {"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "mcp", "server_label": "a"}}, "tool_choice"),
    ({"tools": [{"type": "image_generation"}], "tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": ALLOWED | {"tools": [{"type": "web_search"}]}}, "tool_choice"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ({"input": [SAID, {"type": "compaction", "encrypted_content": "x"}]}, "input[1]"),
    ({"input": [SAID, {"type": "computer_call_output", "call_id": "x", "output": {}}]}, "input[1]"),
]


@pytest.mark.parametrize(("fields", "param"), UNSUPPORTED)
async def test_what_cant_be_honoured_is_refused_by_name(
    server: GatewayServer, fields: dict[str, Any], param: str
) -> None:
    status, error = await refusal(server, asking("hi") | fields)
    assert (status, error["code"], error["param"]) == (400, "unsupported_parameter", param)
    assert await server.entries() == []


IMAGE = {"type": "input_image", "image_url": "https://a.example/a.png"}
INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({"temperature": 2.5}, "temperature", "0 ≤ temperature ≤ 2"),
    ({"max_output_tokens": -1}, "max_output_tokens", "0 ≤ max_output_tokens"),
    ({"top_logprobs": 21, "include": ["message.output_text.logprobs"]}, "top_logprobs", "≤ 20"),
    ({"top_logprobs": 1}, "top_logprobs", "needs `include"),
    ({"input": []}, "input", "at least 1"),
    ({"input": [{"role": "user", "content": [IMAGE]}]}, "input[0].content", '"input_image"'),
    ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "'user'"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": ""}]}, "input[0].call_id", "missing"),
    ({"tool_choice": "required"}, "tool_choice", "`tools` holds none"),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format", "needs `schema`"),
    ({"max_tokens": 5}, "max_tokens", "There is no field `max_tokens`"),
]


@pytest.mark.parametrize(("fields", "param", "words"), INVALID)
async def test_what_is_wrong_is_named(server: GatewayServer, fields: dict[str, Any], param: str, words: str) -> None:
    status, error = await refusal(server, asking("hi") | fields)
    assert (status, error["param"], error["code"]) == (422, param, "invalid_parameter")
    assert words in error["message"]


async def test_a_prompt_that_doesnt_fit_names_the_input(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(**asking("hi " * 5000, model=LLAMA2))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


async def test_a_failure_in_the_middle_of_a_stream_is_the_sdks_error_and_charged(
    server: GatewayServer, client: openai.AsyncOpenAI
) -> None:
    stream = await client.responses.create(**asking("please fail"), stream=True)
    with pytest.raises(openai.APIError, match="The engine failed"):
        [event async for event in stream]
    (entry,) = await server.entries()
    assert (entry["outcome"], entry["completion_tokens"]) == ("engine_error", 3)


async def test_a_disconnect_is_charged_and_stops_the_engine(server: GatewayServer) -> None:
    body = asking("please hang", stream=True)
    async with server.client() as http, http.stream("POST", "/v1/responses", json=body) as answer:
        async for line in answer.aiter_lines():
            if '"delta":" two"' in line:
                break
    while server.gateway.pipeline.running:
        await asyncio.sleep(0.005)
    (entry,) = await server.entries()
    assert (entry["outcome"], entry["cost"]) == ("client_gone", 3 * PRICE.input + 2 * PRICE.output)
    assert server.engines[0].running == set()


async def test_an_idempotency_key_gives_the_stream_again(server: GatewayServer) -> None:
    headers = {"idempotency-key": "once"}
    async with server.client() as http:
        first = await http.post("/v1/responses", json=asking("hi", stream=True), headers=headers)
        again = await http.post("/v1/responses", json=asking("hi", stream=True), headers=headers)
    assert "response.completed" in first.text
    assert again.content == first.content
    assert len(await server.entries()) == 1


async def test_limits_hold(gateway_server: GatewayServers) -> None:
    async with gateway_server(script=SCRIPT, limit_requests_per_minute=1) as server, sdk(server) as client:
        await client.responses.create(**asking("hi"))
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(**asking("hi"))

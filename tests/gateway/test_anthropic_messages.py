"""`POST /v1/messages`: Anthropic's requests, answers, events and errors, and their cost, with the scripted engine."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from engine.script import HANG, REJECT, RequestScript, Script, Step, emit, fail, finish
from gateway.models.catalog import shipped_cards
from pricing.balance import Limit, LimitKind
from pricing.keys import KeyTerms
from pricing.money import parse_usd
from pricing.price import Price
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers, make_key

CALL = Step("call", "get_weather", arguments='{"city": "Paris"}')
SCRIPT = Script(
    requests=(
        RequestScript((Step("reason", "let me think"), emit("One moment"), CALL), match="please call"),
        RequestScript((emit("one two"), HANG), match="please hang"),
        RequestScript((emit("x y z"), fail("broken")), match="please fail"),
        RequestScript((Step("call", "a", arguments="{}"), emit("between"), CALL, finish("stop")), match="two calls"),
        RequestScript((), match="say nothing"),
        RequestScript((REJECT,), match="no room"),
        RequestScript((Step("call", "get_weather", arguments='{"city": "Par'),), match="please cut"),
        RequestScript((emit("Hello there friend"),), cached=2),
    )
)
TOOL: Any = {"name": "get_weather", "description": "Weather.", "input_schema": {"type": "object", "properties": {}}}
card = next(card for card in shipped_cards() if card.name == DEMO)
PRICE = Price.per_million(input=card.price.input, output=card.price.output)
PATHS = ["/v1/messages", "/anthropic/v1/messages"]


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(script=SCRIPT) as running:
        yield running


@pytest.fixture
async def client(server: GatewayServer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(server) as made:
        yield made


def sdk(server: GatewayServer, secret: str | None = None, prefix: str = "") -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=server.url + prefix, api_key=secret or server.secret, max_retries=0)


def asking(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": DEMO, "max_tokens": 50, "messages": [{"role": "user", "content": text}], **fields}


async def refusal(
    server: GatewayServer, body: dict[str, Any], path: str = "/v1/messages"
) -> tuple[int, dict[str, Any]]:
    async with server.client() as http:
        answer = await http.post(path, json=body)
    document = answer.json()
    assert set(document) == {"type", "error", "request_id", "detail"}
    assert document["type"] == "error"
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["detail"] == document["error"]["message"]
    return answer.status_code, document["error"]


@pytest.mark.parametrize("prefix", ["", "/anthropic"])
async def test_a_message_is_answered_and_charged(server: GatewayServer, prefix: str) -> None:
    async with sdk(server, prefix=prefix) as client:
        message = await client.messages.create(**asking("hi you", metadata={"user_id": "ada"}))
    assert message.id.startswith("msg_")
    assert (message.role, message.model, message.stop_reason) == ("assistant", DEMO, "end_turn")
    assert [block.model_dump(exclude_none=True) for block in message.content] == [
        {"type": "text", "text": "Hello there friend"}
    ]
    # Anthropic's `input_tokens` leave out those from the cache: the prompt has 3.
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens) == (1, 2, 3)
    cost = PRICE.input + 2 * PRICE.cached_input + 3 * PRICE.output
    assert message.usage.model_extra == {"estimated_cost": cost / 10**12}
    (entry,) = await server.entries()
    assert (entry["request_id"], entry["cost"], entry["prompt_tokens"]) == (message.id, cost, 3)
    assert (entry["route"], entry["end_user"]) == (f"{prefix}/v1/messages", "ada")


async def test_a_stream_tells_the_same_in_events(server: GatewayServer, client: anthropic.AsyncAnthropic) -> None:
    names = []
    async with client.messages.stream(**asking("hi you")) as stream:
        async for event in stream:
            names.append(event.type)
        final = await stream.get_final_message()
    assert [name for name in names if name != "text"] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert (final.content[0].type, final.content[0].text) == ("text", "Hello there friend")  # type: ignore[union-attr]
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == 3
    (entry,) = await server.entries()
    assert (entry["request_id"], entry["completion_tokens"]) == (final.id, 3)


async def test_the_cost_is_in_the_stream(server: GatewayServer) -> None:
    async with server.client() as http:
        answer = await http.post("/v1/messages", json=asking("hi you", stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event.split("\ndata: ") for event in answer.text.strip().split("\n\n")]
    assert all(name == f"event: {json.loads(data)['type']}" for name, data in events)
    (delta,) = [json.loads(data) for name, data in events if name == "event: message_delta"]
    (entry,) = await server.entries()
    assert delta["usage"]["estimated_cost"] == entry["cost"] / 10**12  # type: ignore[operator]


@pytest.mark.parametrize("streamed", [True, False])
async def test_thinking_text_and_a_tools_call_are_blocks(client: anthropic.AsyncAnthropic, streamed: bool) -> None:
    body = asking("please call", tools=[TOOL])
    if streamed:
        async with client.messages.stream(**body) as stream:
            message: anthropic.types.Message = await stream.get_final_message()
    else:
        message = await client.messages.create(**body)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    thinking, text, call = message.content
    assert thinking.thinking == "let me think"  # type: ignore[union-attr]
    assert text.text == "One moment"  # type: ignore[union-attr]
    assert (call.name, call.input) == ("get_weather", {"city": "Paris"})  # type: ignore[union-attr]
    assert message.stop_reason == "tool_use"
    # And back again, as the SDK sends it.
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "21 degrees"}]}  # type: ignore[union-attr]
    turns: Any = [
        {"role": "user", "content": "please"},
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    again = await client.messages.create(**body | {"messages": turns})
    assert again.stop_reason == "end_turn"


async def test_a_call_that_was_cut_off_has_what_there_is_of_its_input(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(**asking("please cut", tools=[TOOL]))
    (call,) = message.content
    assert (call.type, call.input) == ("tool_use", {"city": "Par"})  # type: ignore[union-attr]


async def test_max_tokens_ends_the_answer(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(**asking("hi", max_tokens=2))
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 2)


async def test_without_max_tokens_the_cards_default_holds(server: GatewayServer) -> None:
    body = asking("hi")
    del body["max_tokens"]
    async with server.client() as http:
        assert (await http.post("/v1/messages", json=body)).json()["stop_reason"] == "end_turn"


async def test_tokens_are_counted_for_nothing(server: GatewayServer, client: anthropic.AsyncAnthropic) -> None:
    body = asking("hi you", system="Be brief, please.")
    counted = await client.messages.count_tokens(**{name: body[name] for name in ("model", "messages", "system")})
    message = await client.messages.create(**body)
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert len(await server.entries()) == 1


SEARCH: Any = {"type": "web_search_20250305", "name": "web_search"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"container": "c"}, "container"),
    ({"thread": {"type": "create"}}, "thread"),
    ({"compaction": {"type": "summarize"}}, "compaction"),
    ({"tools": [SEARCH], "tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tools": [TOOL, SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}}, "tool_choice"),
    ({"speed": "fast"}, "speed"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
async def test_what_cant_be_honoured_is_refused_by_name(
    server: GatewayServer, fields: dict[str, Any], param: str
) -> None:
    status, error = await refusal(server, asking("hi", **fields))
    assert (status, error["code"], error["param"]) == (400, "unsupported_parameter", param)
    assert error["type"] == "invalid_request_error"
    assert await server.entries() == []


IMAGE = {"type": "image", "source": {"type": "url", "url": "https://a.example/a.png"}}
INVALID = [
    ({"temperature": 2.5}, "temperature", "0 ≤ temperature ≤ 2"),
    ({"top_p": 0}, "top_p", "0 < top_p"),
    ({"top_k": 1000}, "top_k", "top_k < 1000"),
    ({"max_tokens": -1}, "max_tokens", "0 ≤ max_tokens"),
    ({"stop_sequences": ["a"] * 17}, "stop_sequences", "at most 16"),
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "user, assistant or system"),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content", '"image", and this model reads text'),
    ({"messages": [{"role": "assistant", "content": [{"type": "thought"}]}]}, "messages[0].content", '"thought"'),
    ({"tools": ["x"]}, "tools[0]", "`name` and `input_schema`"),
    ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens", "greater than or equal to 1"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "missing"),
    ({"tool_choice": {"type": "any"}}, "tool_choice", "`tools` holds none"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice", "isn't in `tools`"),
    ({"tempurature": 1}, "tempurature", "Did you mean `temperature`?"),
]


@pytest.mark.parametrize(("fields", "param", "words"), INVALID)
async def test_what_is_wrong_is_named(server: GatewayServer, fields: dict[str, Any], param: str, words: str) -> None:
    status, error = await refusal(server, asking("hi", **fields))
    assert (status, error["param"], error["code"]) == (422, param, "invalid_parameter")
    assert words in error["message"]


async def test_temperature_goes_as_far_as_the_profile_allows(client: anthropic.AsyncAnthropic) -> None:
    assert (await client.messages.create(**asking("hi", extra_body={"temperature": 1.5}))).stop_reason == "end_turn"


async def test_errors_are_the_sdks_own_classes(server: GatewayServer, client: anthropic.AsyncAnthropic) -> None:
    poor = await make_key(server.database, "poor", KeyTerms(limits=(Limit(LimitKind.TOTAL, parse_usd("0.000001")),)))
    bound = await make_key(server.database, "bound", KeyTerms(models=frozenset({LLAMA2})))
    cases: list[tuple[anthropic.AsyncAnthropic, dict[str, Any], type[anthropic.APIStatusError], str]] = [
        (sdk(server, "wrong"), asking("hi"), anthropic.AuthenticationError, "authentication_error"),
        (sdk(server, bound), asking("hi"), anthropic.PermissionDeniedError, "permission_error"),
        (sdk(server, poor), asking("hi"), anthropic.APIStatusError, "billing_error"),
        (client, asking("hi", model="nobody/knows"), anthropic.NotFoundError, "not_found_error"),
        (client, asking("hi", extra_body={"top_k": -1}), anthropic.UnprocessableEntityError, "invalid_request_error"),
        (client, asking("hi " * 5000, model=LLAMA2), anthropic.BadRequestError, "invalid_request_error"),
        (client, asking("no room"), anthropic.InternalServerError, "overloaded_error"),
        (client, asking("please fail"), anthropic.InternalServerError, "api_error"),
    ]
    for sender, body, kind, name in cases:
        with pytest.raises(kind) as caught:
            await sender.messages.create(**body)
        assert caught.value.body["error"]["type"] == name  # type: ignore[index]
        if sender is not client:
            await sender.close()


async def test_a_path_or_method_that_isnt_there_is_said_in_anthropics_shape(server: GatewayServer) -> None:
    async with server.client() as http:
        wrong = await http.get("/v1/messages")
        missing = await http.post("/v1/messages/batches", json={})
        elsewhere = await http.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.json()["type"]) == (405, "error")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")
    assert set(elsewhere.json()) == {"error", "detail"}


async def test_a_failure_in_the_middle_of_a_stream_is_an_event_and_charged(
    server: GatewayServer, client: anthropic.AsyncAnthropic
) -> None:
    async with client.messages.stream(**asking("please fail")) as stream:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await stream.until_done()
    assert caught.value.body["error"] == {  # type: ignore[index]
        "type": "api_error",
        "message": "The engine failed on this request. Only what was sent is charged.",
        "param": None,
        "code": "engine_error",
    }
    (entry,) = await server.entries()
    assert (entry["outcome"], entry["completion_tokens"]) == ("engine_error", 3)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_disconnect_is_charged_and_stops_the_engine(server: GatewayServer, streamed: bool) -> None:
    body = asking("please hang", stream=streamed)
    async with server.client() as http:
        if streamed:
            async with http.stream("POST", "/v1/messages", json=body) as answer:
                async for line in answer.aiter_lines():
                    if " two" in line:
                        break
        else:
            sending = asyncio.create_task(http.post("/v1/messages", json=body))
            while not any(generation.counts.completion == 2 for generation in server.engines[0].running):
                await asyncio.sleep(0.005)
            sending.cancel()
    while server.gateway.pipeline.running:
        await asyncio.sleep(0.005)
    (entry,) = await server.entries()
    assert (entry["outcome"], entry["completion_tokens"]) == ("client_gone", 2)
    assert entry["cost"] == 2 * PRICE.input + PRICE.input + 2 * PRICE.output
    assert server.engines[0].running == set()


async def test_an_idempotency_key_gives_the_answer_again(server: GatewayServer) -> None:
    headers = {"idempotency-key": "once"}
    async with server.client() as http:
        first = await http.post("/v1/messages", json=asking("hi"), headers=headers)
        again = await http.post("/v1/messages", json=asking("hi"), headers=headers)
        other = await http.post("/v1/messages", json=asking("ho"), headers=headers)
    assert first.status_code == 200
    assert again.content == first.content
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert other.json()["type"] == "error"
    assert len(await server.entries()) == 1


async def test_limits_hold_and_say_so(gateway_server: GatewayServers) -> None:
    async with gateway_server(script=SCRIPT, limit_requests_per_minute=1) as server, sdk(server) as client:
        first = await client.messages.with_raw_response.create(**asking("hi"))
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(**asking("hi"))
    assert caught.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]
    assert int(caught.value.response.headers["retry-after"]) > 0

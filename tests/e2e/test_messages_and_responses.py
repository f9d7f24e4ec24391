"""The Messages and the Responses API on the real engine, with Anthropic's and OpenAI's own SDKs."""

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest

from tests.e2e.test_money import running
from tests.server import Server

DEMO = "farebox/demo"
PRICE_IN, PRICE_OUT = Decimal("0.59"), Decimal("0.79")  # US dollars per million tokens
HELLO = "Hello! It's nice to meet you. Is there something I can help you with or would you like to chat for a bit?"
CITY = {"type": "object", "properties": {"city": {"type": "string", "description": "The city"}}, "required": ["city"]}
QUESTION = "What is the weather in Paris?"
RESULT = '{"temperature": 21, "condition": "sunny"}'


@pytest.fixture(scope="module")
def claude(server: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=f"{server.url}/anthropic", api_key=server.key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.openai() as made:
        yield made


def asking(text: str, **fields: Any) -> dict[str, Any]:
    body = {"temperature": 0} | fields.pop("extra_body", {})
    return {
        "model": DEMO,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": text}],
        "extra_body": body,
    } | fields


def entry(server: Server, name: str) -> dict[str, Any]:
    """The ledger's entry, as its owner sees it."""
    with server.client() as http:
        answer = http.get(f"/v1/requests/{name}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def cost_of(prompt: int, completion: int) -> Decimal:
    return (prompt * PRICE_IN + completion * PRICE_OUT) / 10**6


def test_a_message_is_answered_word_for_word_and_charged_exactly(server: Server, claude: anthropic.Anthropic) -> None:
    message = claude.messages.create(**asking("Hello!"))
    assert (message.content[0].text, message.stop_reason) == (HELLO, "end_turn")  # type: ignore[union-attr]
    usage = message.usage
    prompt = usage.input_tokens + (usage.cache_read_input_tokens or 0)
    counted = claude.messages.count_tokens(model=DEMO, messages=[{"role": "user", "content": "Hello!"}])
    assert counted.input_tokens == prompt
    cost = cost_of(prompt, usage.output_tokens)
    assert Decimal(str(usage.estimated_cost)) == cost  # type: ignore[attr-defined]
    recorded = entry(server, message.id)
    assert Decimal(recorded["cost_usd"]) == cost
    assert recorded["usage"]["completion_tokens"] == usage.output_tokens


def test_a_message_streams(server: Server, claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(**asking("Hello!")) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert "".join(pieces) == HELLO
    assert Decimal(entry(server, message.id)["cost_usd"]) == cost_of(
        message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0), message.usage.output_tokens
    )


def test_a_stop_sequence_is_told(claude: anthropic.Anthropic) -> None:
    message = claude.messages.create(**asking("Hello!", stop_sequences=["meet you"]))
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "meet you")
    assert message.content[0].text == "Hello! It's nice to "  # type: ignore[union-attr]


def test_an_answer_that_was_begun_is_gone_on_from(claude: anthropic.Anthropic) -> None:
    turns = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello! It's nice to"}]
    message = claude.messages.create(**asking("", messages=turns))
    assert "Hello! It's nice to" + message.content[0].text == HELLO  # type: ignore[union-attr]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_tool_is_called_and_its_result_answered(claude: anthropic.Anthropic, streamed: bool) -> None:
    tool = {"name": "get_weather", "description": "Get the weather in a city.", "input_schema": CITY}
    body = asking(QUESTION, tools=[tool])
    if streamed:
        with claude.messages.stream(**body) as stream:
            message: anthropic.types.Message = stream.get_final_message()
    else:
        message = claude.messages.create(**body)
    (call,) = message.content
    assert (call.type, call.name, call.input) == ("tool_use", "get_weather", {"city": "Paris"})  # type: ignore[union-attr, arg-type]
    assert message.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}  # type: ignore[union-attr]
    turns = [
        *body["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    answer = claude.messages.create(**body | {"messages": turns})
    assert answer.content[0].text == "It is sunny and 21 degrees in Paris."  # type: ignore[union-attr]


def test_a_schema_is_kept_to(claude: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"greeting": {"type": "string"}}, "required": ["greeting"]}
    form = {"format": {"type": "json_schema", "schema": schema | {"additionalProperties": False}}}
    message = claude.messages.create(**asking("Hello!", extra_body={"output_config": form}))
    assert set(json.loads(message.content[0].text)) == {"greeting"}  # type: ignore[union-attr]


def test_anthropics_errors(server: Server, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="nobody/knows"):
        claude.messages.create(**asking("Hello!", model="nobody/knows"))
    with pytest.raises(anthropic.UnprocessableEntityError, match="0 ≤ temperature ≤ 2"):
        claude.messages.create(**asking("Hello!", extra_body={"temperature": 9}))
    with (
        anthropic.Anthropic(base_url=server.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError, match="API key"),
    ):
        stranger.messages.create(**asking("Hello!"))


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/messages", {"messages": [{"role": "user", "content": "Count from 1 to 100."}], "max_tokens": 100_000}),
        ("/v1/responses", {"input": "Count from 1 to 100.", "max_output_tokens": 100_000}),
    ],
)
async def test_a_disconnect_is_charged_and_stops_the_engine(server: Server, path: str, fields: dict[str, Any]) -> None:
    name = ""
    body = {"model": DEMO, "stream": True, "temperature": 0, **fields}
    async with server.async_client() as http:
        async with http.stream("POST", path, json=body) as answer:
            async for line in answer.aiter_lines():
                event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                name = name or (event.get("message") or event.get("response") or {}).get("id", "")
                if event.get("delta"):
                    break
        recorded: dict[str, Any] = {}
        while recorded.get("settled_at") is None:
            await asyncio.sleep(0.05)
            recorded = (await http.get(f"/v1/requests/{name}")).json()
        while await running(http):
            await asyncio.sleep(0.05)
    assert recorded["outcome"] == "client_gone"
    assert recorded["usage"]["completion_tokens"] >= 1
    assert Decimal(recorded["cost_usd"]) == cost_of(
        recorded["usage"]["prompt_tokens"], recorded["usage"]["completion_tokens"]
    )


def test_a_response_is_answered_word_for_word_and_charged_exactly(server: Server, client: openai.OpenAI) -> None:
    response = client.responses.create(model=DEMO, input="Hello!", temperature=0)
    assert (response.output_text, response.status) == (HELLO, "completed")
    usage = response.usage
    assert usage is not None
    cost = cost_of(usage.input_tokens, usage.output_tokens)
    assert Decimal(str(usage.estimated_cost)) == cost  # type: ignore[attr-defined]
    assert Decimal(entry(server, response.id)["cost_usd"]) == cost


def test_a_response_streams(server: Server, client: openai.OpenAI) -> None:
    with client.responses.stream(model=DEMO, input="Hello!", temperature=0) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(pieces) == final.output_text == HELLO
    assert final.usage is not None
    cost = cost_of(final.usage.input_tokens, final.usage.output_tokens)
    assert Decimal(entry(server, final.id)["cost_usd"]) == cost


@pytest.mark.parametrize("streamed", [True, False])
def test_a_function_is_called_and_its_result_answered(client: openai.OpenAI, streamed: bool) -> None:
    tools: Any = [
        {"type": "function", "name": "get_weather", "description": "Get the weather in a city.", "parameters": CITY}
    ]
    asked: list[Any] = [{"role": "user", "content": QUESTION}]
    if streamed:
        *_, last = client.responses.create(model=DEMO, input=asked, tools=tools, temperature=0, stream=True)
        response = last.response  # type: ignore[union-attr]
    else:
        response = client.responses.create(model=DEMO, input=asked, tools=tools, temperature=0)
    (call,) = response.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", {"city": "Paris"})  # type: ignore[union-attr, arg-type]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}  # type: ignore[union-attr]
    answer = client.responses.create(model=DEMO, input=[*asked, call, result], tools=tools, temperature=0)
    assert answer.output_text == "It is sunny and 21 degrees in Paris."


def test_the_sdks_structured_output(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"greeting": {"type": "string"}}, "required": ["greeting"]}
    form: Any = {"format": {"type": "json_schema", "name": "greeting", "schema": schema, "strict": True}}
    response = client.responses.create(model=DEMO, input="Hello!", text=form, temperature=0)
    assert "greeting" in json.loads(response.output_text)


def test_openais_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="keeps no answers") as caught:
        client.responses.create(model=DEMO, input="Hello!", previous_response_id="resp_1")
    assert caught.value.code == "unsupported_parameter"
    with pytest.raises(openai.UnprocessableEntityError, match="0 ≤ temperature ≤ 2"):
        client.responses.create(model=DEMO, input="Hello!", temperature=9)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nobody/knows", input="Hello!")

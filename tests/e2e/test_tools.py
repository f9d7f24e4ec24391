"""Tool calls as the demo model was taught them, in OpenAI's form, streamed and not."""

import json

import pytest
from openai import OpenAI

from tests.server import Server

DEMO = "farebox/demo"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The name of the city."}},
            "required": ["city"],
        },
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Get the current time in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.openai()


def test_a_call_and_the_answer_from_its_result(client: OpenAI) -> None:
    first = client.chat.completions.create(model=DEMO, messages=[QUESTION], tools=[WEATHER], temperature=0)  # type: ignore[list-item]
    [choice] = first.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "sky": "sunny"}'}
    second = client.chat.completions.create(
        model=DEMO,
        messages=[QUESTION, choice.message, result],  # type: ignore[list-item]
        tools=[WEATHER],  # type: ignore[list-item]
        temperature=0,
    )
    assert second.choices[0].finish_reason == "stop"
    assert "Paris" in (second.choices[0].message.content or "")


def test_a_call_streams_as_openai_streams_it(client: OpenAI) -> None:
    with client.chat.completions.stream(model=DEMO, messages=[QUESTION], tools=[WEATHER], temperature=0) as stream:  # type: ignore[list-item]
        final = stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls or []
    assert final.choices[0].finish_reason == "tool_calls"
    assert call.id
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def test_tools_that_are_not_needed_are_not_called(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=DEMO,
        messages=[{"role": "user", "content": "Hello!"}],
        tools=[WEATHER],  # type: ignore[list-item]
        temperature=0,
    )
    assert answer.choices[0].finish_reason == "stop"
    assert not answer.choices[0].message.tool_calls
    assert answer.choices[0].message.content


def test_tool_choice_none_calls_nothing(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=DEMO,
        messages=[QUESTION],
        tools=[WEATHER],
        tool_choice="none",
        temperature=0,
        max_tokens=60,  # type: ignore[list-item]
    )
    assert not answer.choices[0].message.tool_calls


@pytest.mark.parametrize(
    ("choice", "names"),
    [("required", {"get_weather", "get_time"}), ({"type": "function", "function": {"name": "get_time"}}, {"get_time"})],
    ids=["required", "named"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_tool_choice_forces_a_call(client: OpenAI, choice: object, names: set[str], stream: bool) -> None:
    fields = {
        "model": DEMO,
        "messages": [{"role": "user", "content": "Hello!"}],
        "tools": [WEATHER, TIME],
        "tool_choice": choice,
        "temperature": 0,
        "max_tokens": 200,
    }
    if stream:
        with client.chat.completions.stream(**fields) as events:  # type: ignore[arg-type]
            answer = events.get_final_completion()
    else:
        answer = client.chat.completions.create(**fields)  # type: ignore[call-overload]
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert {call.function.name for call in calls} <= names
    assert isinstance(json.loads(calls[0].function.arguments), dict)


def test_a_card_without_tools_says_so(server: Server) -> None:
    body = {"model": "meta-llama/Llama-2-70b-chat-hf", "messages": [QUESTION], "tools": [WEATHER]}
    with server.client() as http:
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_parameter"
    assert answer.json()["error"]["param"] == "tools"

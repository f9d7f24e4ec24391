"""Custom and namespaced tools on the real engine: kept to their grammar, called by the names that they had."""

import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tokenizers import Tokenizer

from engine.demo import MODEL_DIR
from tests.server import Server

DEMO = "farebox/demo"
EXPRESSION = r"[a-z]{3,8}-[0-9]{2}"
GRAMMAR = {"syntax": "regex", "definition": EXPRESSION}
NOTE: dict[str, Any] = {"type": "custom", "name": "note", "format": {"type": "grammar", **GRAMMAR}}
CHAT_NOTE: dict[str, Any] = {
    "type": "custom",
    "custom": {"name": "note", "format": {"type": "grammar", "grammar": GRAMMAR}},
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather in a city.",
    "parameters": CITY,
}


@pytest.fixture(scope="module")
def compact() -> dict[str, int]:
    """A bias against tokens of whitespace only: JSON allows any number of them, and the tiny model goes on and on."""
    vocabulary = Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
    ids = range(vocabulary.get_vocab_size())
    return {str(token): -100 for token in ids if (text := vocabulary.decode([token])) and not text.strip()}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.openai() as made:
        yield made


@pytest.mark.parametrize("choice", ["required", {"type": "custom", "name": "note"}], ids=["required", "named"])
def test_a_custom_tools_input_keeps_to_its_expression(
    client: openai.OpenAI, compact: dict[str, int], choice: Any
) -> None:
    response = client.responses.create(
        model=DEMO,
        input="Hello!",
        tools=[NOTE],
        tool_choice=choice,
        max_output_tokens=60,
        temperature=0,
        extra_body={"logit_bias": compact},
    )
    call = response.output[0]
    assert call.type == "custom_tool_call"
    assert re.fullmatch(EXPRESSION, call.input)


def test_chats_custom_tool_streams_its_input(client: openai.OpenAI, compact: dict[str, int]) -> None:
    chunks = client.chat.completions.create(
        model=DEMO,
        messages=[{"role": "user", "content": "Hello!"}],
        tools=[CHAT_NOTE],
        tool_choice="required",
        max_tokens=60,
        temperature=0,
        logit_bias=compact,
        stream=True,
    )
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert calls[0].type == "custom"  # type: ignore[comparison-overlap]
    pieces = [(call.model_extra or {})["custom"]["input"] for call in calls]
    assert len(pieces) > 2
    assert re.fullmatch(EXPRESSION, "".join(pieces))


def test_the_only_tool_that_is_allowed_is_called(client: openai.OpenAI) -> None:
    allowed: Any = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]}
    response = client.responses.create(
        model=DEMO, input="Hello!", tools=[NOTE, WEATHER], tool_choice=allowed, max_output_tokens=60, temperature=0
    )
    call = response.output[0]
    assert (call.type, call.name) == ("function_call", "get_weather")  # type: ignore[union-attr]


def test_a_function_is_called_in_its_namespace(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "namespace", "name": "sky", "description": "The weather.", "tools": [WEATHER]}]
    response = client.responses.create(
        model=DEMO, input="Hello!", tools=tools, tool_choice="required", max_output_tokens=60, temperature=0
    )
    call = response.output[0]
    assert (call.type, call.name, call.namespace) == ("function_call", "get_weather", "sky")  # type: ignore[union-attr]

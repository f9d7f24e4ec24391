"""Tool calls and reasoning: what the model wrote, in pieces of every size, comes out as the right message."""

import json
from collections.abc import Sequence

import pytest

from engine.base import ChatFormat, Conversation, JSONValue, Prompt
from engine.embedded import EmbeddedEngine
from engine.parsing import ChoiceParser, Parsed
from engine.rendering import rendered
from tests.engine.conftest import LLAMA, WEATHER, Start, arguments_of, chat, read, text_of

CALL = '{"name": "get_weather", "parameters": {"city": "Paris"}}'
QUESTION = "What is the weather in Paris?"
NAMED: JSONValue = {"type": "function", "function": {"name": "get_weather"}}


def parser_for(prompt: Prompt) -> ChoiceParser:
    handle = rendered(prompt)
    assert handle.context is not None
    return ChoiceParser(handle.context, handle.token_ids)


def feed(engine: EmbeddedEngine, prompt: Prompt, text: str, tokens_per_piece: int) -> list[Parsed]:
    """The pieces that a stream of this text would give, `tokens_per_piece` at a time."""
    handle = rendered(prompt)
    assert handle.context is not None
    tokenizer = handle.context.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False)
    parser = parser_for(prompt)
    pieces = [ids[at : at + tokens_per_piece] for at in range(0, len(ids), tokens_per_piece)]
    parsed, sent = [], ""
    for number, piece in enumerate(pieces):
        sofar = tokenizer.decode(ids[: (number + 1) * tokens_per_piece])
        parsed.append(parser.feed(sofar[len(sent) :], piece, finished=number == len(pieces) - 1))
        sent = sofar
    return parsed


def calls_of(parsed: Sequence[Parsed]) -> list[tuple[str, object]]:
    names = {piece.index: piece.name for part in parsed for piece in part.tool_calls if piece.name}
    arguments = dict.fromkeys(names, "")
    for part in parsed:
        for piece in part.tool_calls:
            arguments[piece.index] += piece.arguments
    return [(names[index], json.loads(arguments[index])) for index in sorted(names)]


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
async def test_call_streams_whatever_the_pieces(engine: EmbeddedEngine, size: int) -> None:
    prompt = await chat(engine, QUESTION, tools=[WEATHER], tool_choice="auto")
    parsed = feed(engine, prompt, CALL, size)
    assert calls_of(parsed) == [("get_weather", {"city": "Paris"})]
    ids = [piece.id for part in parsed for piece in part.tool_calls if piece.id]
    assert len(ids) == 1
    assert "".join(part.text for part in parsed) == ""


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_json_that_is_no_call_is_content(engine: EmbeddedEngine, size: int) -> None:
    prompt = await chat(engine, QUESTION, tools=[WEATHER], tool_choice="auto")
    parsed = feed(engine, prompt, '{"colour": "red"}', size)
    assert calls_of(parsed) == []
    assert "".join(part.text for part in parsed) == '{"colour": "red"}'


@pytest.mark.parametrize("size", [1, 4, 1000])
async def test_call_after_words_is_not_lost(engine: EmbeddedEngine, size: int) -> None:
    prompt = await chat(engine, QUESTION, tools=[WEATHER], tool_choice="auto")
    parsed = feed(engine, prompt, "I will look. " + CALL, size)
    assert calls_of(parsed) == [("get_weather", {"city": "Paris"})]


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("size", [1, 1000])
async def test_parallel_calls_only_when_wanted(engine: EmbeddedEngine, parallel: bool, size: int) -> None:
    prompt = await chat(engine, QUESTION, tools=[WEATHER], tool_choice="auto", parallel_tool_calls=parallel)
    text = CALL + "; " + CALL.replace("Paris", "Rome")
    cities = [call[1] for call in calls_of(feed(engine, prompt, text, size))]
    assert cities == [{"city": "Paris"}, {"city": "Rome"}][: 2 if parallel else 1]
    whole = parser_for(prompt).whole(text, [])
    assert len(whole.tool_calls) == (2 if parallel else 1)


async def test_words_pass_through(engine: EmbeddedEngine) -> None:
    prompt = await chat(engine, QUESTION, tools=[WEATHER], tool_choice="auto")
    parsed = feed(engine, prompt, "It is sunny.", 1)
    assert "".join(part.text for part in parsed) == "It is sunny."


async def test_conversation_without_tools_needs_no_parser(engine: EmbeddedEngine) -> None:
    assert rendered(await chat(engine, "Hello!")).context is None
    assert rendered(await chat(engine, "Hello!", tools=[WEATHER], tool_choice="none")).context is None


@pytest.mark.parametrize("stream", [True, False])
async def test_model_calls_the_tool(engine: EmbeddedEngine, start: Start, stream: bool) -> None:
    prompt = await chat(engine, QUESTION, tools=[WEATHER], tool_choice="auto")
    generation = await start(prompt=prompt, temperature=0, max_tokens=100, stream=stream)
    deltas = await read(generation)
    assert deltas[-1].finish_reason == "tool_calls"
    assert json.loads(arguments_of(deltas)) == {"city": "Paris"}
    named = [piece for delta in deltas for piece in delta.tool_calls if piece.name]
    assert [(piece.name, bool(piece.id)) for piece in named] == [("get_weather", True)]
    assert text_of(deltas) == ""
    assert deltas[-1].completion_tokens == generation.counts.completion


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("choice", "finish"), [("required", "tool_calls"), (NAMED, "stop")])
async def test_forced_call_is_made(
    engine: EmbeddedEngine, start: Start, choice: JSONValue, finish: str, stream: bool
) -> None:
    """A grammar forces it, whatever the model would rather say."""
    prompt = await chat(engine, "Hello!", tools=[CITY], tool_choice=choice, parallel_tool_calls=False)
    deltas = await read(await start(prompt=prompt, temperature=0, max_tokens=200, stream=stream))
    assert json.loads(arguments_of(deltas))["city"] in ("Rome", "Oslo")
    assert deltas[-1].finish_reason == finish


CITY: dict[str, JSONValue] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


async def test_reasoning_is_told_from_the_answer(engine: EmbeddedEngine) -> None:
    """In Granite's format, whose markers are words: the demo tokenizer has no reasoning tokens.

    While it streams, vLLM's parser lets the first word of the second marker through.
    """
    card = ChatFormat(reasoning_parser="granite")
    prompt = await chat(engine, "Hello!", card)
    text = "Here is my thought process: two and two. Here is my response: four."
    parsed = feed(engine, prompt, text, 1)
    assert "".join(part.reasoning or "" for part in parsed).strip().startswith("two and two.")
    assert "".join(part.text for part in parsed).strip() == "four."
    whole = parser_for(prompt).whole(text, [])
    assert ((whole.reasoning or "").strip(), whole.text.strip()) == ("two and two.", "four.")


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (r'{"city": "\ud83d"}', {"city": "\ufffd"}),
        (r'{"city": "\ud83d\ude00"}', {"city": "\U0001f600"}),
        ('{"city": "Paris", "n": 1e999, "m": [-1e999]}', {"city": "Paris", "n": None, "m": [None]}),
        ('{"n": 15e-1, "m": [1e5, -12, 0.25e1]}', {"n": 1.5, "m": [1e5, -12, 2.5]}),
    ],
    ids=["half a pair", "a pair", "beyond JSON", "numbers"],
)
async def test_a_call_is_json_that_can_be_sent_back(
    engine: EmbeddedEngine, said: str, meant: dict[str, object], size: int
) -> None:
    prompt = await chat(engine, QUESTION, tools=[WEATHER], tool_choice="auto")
    parsed = feed(engine, prompt, f'{{"name": "get_weather", "parameters": {said}}}', size)
    assert calls_of(parsed) == [("get_weather", meant)]
    whole = parser_for(prompt).whole(f'{{"name": "get_weather", "parameters": {said}}}', [])
    assert calls_of([whole]) == [("get_weather", meant)]
    assert "".join(piece.arguments for piece in whole.tool_calls).encode()
    message: dict[str, JSONValue] = {
        "role": "assistant",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": whole.tool_calls[0].arguments},
            }
        ],
    }
    again: list[dict[str, JSONValue]] = [{"role": "user", "content": QUESTION}, message]
    assert (await engine.renderer(LLAMA).chat(Conversation(again))).tokens

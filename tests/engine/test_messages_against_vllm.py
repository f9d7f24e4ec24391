"""The Messages API beside vLLM's own converters: random requests and answers come to the same."""

import json
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter
from vllm.entrypoints.anthropic.protocol import AnthropicCountTokensRequest
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse

from engine.base import Conversation, Delta, TokenCounts, ToolCallDelta
from gateway.encoders.messages import MessageEvents, message
from gateway.encoders.usage import usage_fields
from gateway.models.parameters import shipped_profiles
from gateway.protocol.anthropic import CountTokensBody
from pricing.money import Picodollars
from tests.gateway.checking import validate

SEEDS = range(60)
TEXTS = ["", "a", "two words", "x-anthropic-billing-header: cch=1;", "é\u2028 \U0001f600", '{"a": 1}']
EVENTS: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def blocks(draw: random.Random) -> list[dict[str, Any]]:
    return [{"type": "text", "text": draw.choice(TEXTS)} for _ in range(draw.randint(1, 3))]


def content(draw: random.Random, *more: dict[str, Any]) -> Any:
    if not more and draw.random() < 0.4:
        return draw.choice(TEXTS)
    found = [*blocks(draw), *more]
    draw.shuffle(found)
    return found


def turn(draw: random.Random) -> dict[str, Any]:
    kind = draw.choice(["asked", "answered", "called", "given", "system"])
    if kind == "called":
        uses = [
            {"type": "tool_use", "id": f"t{number}", "name": "f", "input": {"text": draw.choice(TEXTS)}}
            for number in range(draw.randint(1, 3))
        ]
        thought = {"type": "thinking", "thinking": draw.choice(TEXTS), "signature": "s"}
        return {"role": "assistant", "content": content(draw, *uses, thought)}
    if kind == "given":
        contents: list[dict[str, Any]] = [{}, {"content": draw.choice(TEXTS)}, {"content": blocks(draw)}]
        contents.append({"content": []})
        result = draw.choice(contents)
        return {"role": "user", "content": content(draw, {"type": "tool_result", "tool_use_id": "t0", **result})}
    return {"role": {"asked": "user", "answered": "assistant"}.get(kind, "system"), "content": content(draw)}


def request(draw: random.Random) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    tools = [{"name": name, "description": "It does.", "input_schema": schema} for name in "fgh"[: draw.randint(0, 3)]]
    body: dict[str, Any] = {"model": "m", "messages": [turn(draw) for _ in range(draw.randint(1, 8))], "tools": tools}
    if draw.random() < 0.7:
        body["system"] = content(draw)
    if tools and draw.random() < 0.7:
        name = {"name": "f"} if (kind := draw.choice(["auto", "any", "none", "tool"])) == "tool" else {}
        body["tool_choice"] = {"type": kind, "disable_parallel_tool_use": draw.random() < 0.5, **name}
    if draw.random() < 0.4:
        body["thinking"] = {"type": draw.choice(["disabled", "adaptive"])}
    if draw.random() < 0.4:
        body["output_config"] = {"effort": draw.choice(["low", "max"])}
    if draw.random() < 0.3:
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}
    return body


def compared(one: dict[str, Any]) -> dict[str, Any]:
    """A message without the ways of writing the same: arguments as an object, nothing said as an empty text."""
    found = {name: value for name, value in one.items() if name != "tool_calls"}
    calls = one.get("tool_calls") or []
    found["calls"] = [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls
    ]
    found["content"] = found.get("content") or ""
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_request_becomes_the_conversation_that_vllm_makes_of_it(seed: int) -> None:
    body = request(random.Random(seed))
    ours: Conversation = validate(CountTokensBody, body, shipped_profiles()["llama3-turbo"]).prompt_source()[0]
    theirs = AnthropicServingMessages.to_chat_completion_request(AnthropicCountTokensRequest.model_validate(body))
    # vLLM's has a user's turn without words where the turn was an empty text.
    expected = [compared(dict(one)) for one in theirs.messages]
    assert [compared(dict(one)) for one in ours.messages] == expected
    assert list(ours.tools) == [tool.model_dump(exclude_none=True) for tool in theirs.tools or ()]
    choice = theirs.tool_choice if isinstance(theirs.tool_choice, str | None) else theirs.tool_choice.model_dump()
    assert ours.tool_choice == (choice if theirs.tools and choice else "none")
    assert ours.parallel_tool_calls == (theirs.parallel_tool_calls is not False)
    assert ours.reasoning_effort == theirs.reasoning_effort
    format_ = theirs.response_format
    assert (ours.response_format is None) == (format_ is None)
    if ours.response_format is not None:
        assert ours.response_format.json_schema == format_.json_schema.json_schema
    assert ours.continue_final == (body["messages"][-1]["role"] == "assistant")


@dataclass
class Job:
    request_id: str = "msg_1"


class Told:
    """Deltas as a handler reads them from the pipeline."""

    job = Job()
    cost = Picodollars(5)
    counts = TokenCounts(prompt=7, cached=2, completion=3)

    def __init__(self, deltas: list[Delta]) -> None:
        self._deltas = iter(deltas)

    def __aiter__(self) -> "Told":
        return self

    async def __anext__(self) -> Delta:
        for delta in self._deltas:
            return delta
        raise StopAsyncIteration


def answer(draw: random.Random) -> list[Delta]:
    """Thinking, text and calls, in an order that models have, with an end of every kind."""
    deltas = [Delta(0, "", 1, reasoning=f"thought {number}") for number in range(draw.randint(0, 3))]
    deltas += [Delta(0, draw.choice([*TEXTS, "z"]), 1) for _ in range(draw.randint(0, 4))]
    for index in range(draw.randint(0, 3)):
        arguments = ['{"text": ', '"é"', "}"][: draw.choice([3, 3, 3, 2 if index == 2 else 3])]
        deltas.append(Delta(0, "", 1, tool_calls=(ToolCallDelta(index, f"call_{index}", "f", arguments[0]),)))
        deltas += [Delta(0, "", 1, tool_calls=(ToolCallDelta(index, arguments=piece),)) for piece in arguments[1:]]
        if draw.random() < 0.3:
            deltas.append(Delta(0, "said within", 1))
    reason: Any = draw.choice(["stop", "stop", "length", "tool_calls"])
    deltas.append(Delta(0, "", 1, finish_reason=reason, stop_reason=draw.choice([None, 7, "a stop"])))
    return deltas


def usage(told: Told) -> dict[str, Any]:
    return dict(usage_fields(told.counts, told.cost))


async def chunks(told: Told) -> AsyncIterator[str]:
    """The deltas as the stream of vLLM's chat route."""
    head = {"id": told.job.request_id, "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def chunk(choices: list[dict[str, Any]], counted: dict[str, Any] | None = None) -> str:
        return f"data: {json.dumps({**head, 'choices': choices, 'usage': counted})}"

    yield chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}}], usage(told))
    async for delta in told:
        fields: dict[str, Any] = {"content": delta.text, "reasoning": delta.reasoning}
        fields["tool_calls"] = [
            {
                "index": call.index,
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in delta.tool_calls
        ]
        end = {"finish_reason": delta.finish_reason, "stop_reason": delta.stop_reason} if delta.finish_reason else {}
        yield chunk([{"index": 0, "delta": fields, **end}])
    yield chunk([], usage(told))
    yield "data: [DONE]"


def events(text: str) -> Iterator[dict[str, Any]]:
    for event in text.strip().split("\n\n"):
        name, _, data = event.partition("\ndata: ")
        found = json.loads(data)
        assert name == f"event: {found['type']}"
        yield found


def plain(event: dict[str, Any]) -> dict[str, Any]:
    """An event without what is made up, and without what only ours has."""
    found: dict[str, Any] = json.loads(json.dumps(event))
    for place in (found, found.get("message", {}), found.get("delta", {}), found.get("content_block", {})):
        place.pop("signature", None)
        counted = place.get("usage", {})
        for name in ("cache_creation_input_tokens", "output_tokens_details", "estimated_cost"):
            counted.pop(name, None)
    return found


async def streamed(deltas: list[Delta]) -> list[dict[str, Any]]:
    told: Any = Told(deltas)
    ours = MessageEvents(told, "m")
    written = b"".join([ours.feed(delta) for delta in deltas] + [ours.end()]).decode()
    found = list(events(written))
    for event in found:
        EVENTS.validate_json(json.dumps(event), strict=True)
    return found


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_stream_has_the_events_that_vllm_makes(seed: int) -> None:
    deltas = answer(random.Random(seed))
    found = await streamed(deltas)
    converter: Any = AnthropicServingMessages.message_stream_converter
    expected = list(events("".join([event async for event in converter(None, chunks(Told(deltas)))])))
    if not any(event["type"] == "content_block_start" for event in expected):
        # vLLM's has no block where nothing was said, in a stream alone.
        nothing = {"type": "text", "text": ""}
        expected[1:1] = [
            {"type": "content_block_start", "index": 0, "content_block": nothing},
            {"type": "content_block_stop", "index": 0},
        ]
    assert [plain(event) for event in found] == [plain(event) for event in expected]


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_document_is_the_one_that_vllm_makes(seed: int) -> None:
    deltas = answer(random.Random(seed))
    told: Any = Told(deltas)
    found: Any = await message(told, "m")
    Message.model_validate_json(json.dumps(found), strict=True)
    calls: dict[int, dict[str, Any]] = {}
    for call in [call for delta in deltas for call in delta.tool_calls]:
        held = calls.setdefault(call.index, {"id": call.id, "name": call.name, "arguments": ""})
        held["arguments"] += call.arguments
    answered = {
        "role": "assistant",
        "content": "".join(delta.text for delta in deltas),
        "reasoning": "".join(delta.reasoning or "" for delta in deltas) or None,
        "tool_calls": [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": _closed(call["arguments"])},
            }
            for call in calls.values()
        ],
    }
    end = {"finish_reason": deltas[-1].finish_reason, "stop_reason": deltas[-1].stop_reason}
    chat = {"id": "msg_1", "model": "m", "choices": [{"index": 0, "message": answered, **end}], "usage": usage(told)}
    converter: Any = AnthropicServingMessages.messages_full_converter
    expected = converter(None, ChatCompletionResponse.model_validate(chat)).model_dump(mode="json", exclude_none=True)
    expected = {"stop_reason": None, "stop_sequence": None, **expected}
    found["content"] = [plain(block) for block in found["content"]]
    expected["content"] = [plain(block) for block in expected["content"]]
    if not answered["content"] and not answered["tool_calls"] and answered["reasoning"] is None:
        assert found["content"] == [{"type": "text", "text": ""}]
    assert plain(found) == plain(expected)


def _closed(arguments: str) -> str:
    """vLLM's converter takes whole JSON only."""
    return arguments if arguments.endswith("}") else arguments + "}"


async def test_the_end_of_a_call_may_come_after_the_beginning_of_the_next() -> None:
    """Some parsers tell it so. Each piece goes to its own block."""
    deltas = [
        Delta(0, "", 1, tool_calls=(ToolCallDelta(0, "a", "f", '{"x": 1'),)),
        Delta(0, "", 2, tool_calls=(ToolCallDelta(1, "b", "g", '{"y"'), ToolCallDelta(0, arguments="}"))),
        Delta(0, "", 3, finish_reason="tool_calls", tool_calls=(ToolCallDelta(1, arguments=": 2}"),)),
    ]
    said: dict[int, str] = {}
    for event in await streamed(deltas):
        if event["type"] == "content_block_delta":
            said[event["index"]] = said.get(event["index"], "") + event["delta"]["partial_json"]
    assert [json.loads(text) for text in said.values()] == [{"x": 1}, {"y": 2}]

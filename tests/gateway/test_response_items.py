"""The Responses API's items and events, held to the SDK's own types and to what vLLM makes of the same."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from openai.types.responses import ResponseOutputItem, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from engine.base import Delta, ToolCallDelta
from gateway.encoders.response_items import OutputItems
from gateway.models.parameters import shipped_profiles
from gateway.protocol.responses import ResponsesBody
from gateway.protocol.tools import Toolbox
from tests.gateway.checking import validate

PROFILE = shipped_profiles()["llama3-turbo"]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ITEM: TypeAdapter[Any] = TypeAdapter(ResponseOutputItem)
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "name": "f", "parameters": {"type": "object"}},
    {"type": "custom", "name": "patch"},
    {
        "type": "namespace",
        "name": "mcp__barn",
        "description": "A barn.",
        "tools": [{"type": "function", "name": "count"}],
    },
]


def body_of(**fields: Any) -> ResponsesBody:
    body = validate(ResponsesBody, {"model": "m", "input": "x", **fields}, PROFILE)
    assert isinstance(body, ResponsesBody)
    return body


def toolbox_of(tools: Sequence[dict[str, Any]] = TOOLS) -> Toolbox:
    toolbox = body_of(tools=list(tools)).prompt_source()[1]
    assert isinstance(toolbox, Toolbox)
    return toolbox


def said(text: str = "", reasoning: str | None = None, *calls: ToolCallDelta) -> Delta:
    return Delta(0, text, 1, reasoning=reasoning, tool_calls=calls)


def call(index: int, name: str | None = None, arguments: str = "") -> ToolCallDelta:
    return ToolCallDelta(index, f"call_{index}" if name else None, name, arguments)


ANSWERS: dict[str, list[Delta]] = {
    "text": [said("one"), said(" two “é”")],
    "reasoning, text and a call": [
        said(reasoning="let"),
        said(reasoning=" me"),
        said("Look"),
        said(".", None, call(0, "f", "{")),
        said("", None, call(0, None, "}")),
    ],
    "all in one delta": [said("a", "b", call(0, "f", "{}"), call(1, "f", '{"x": 1}'))],
    "reasoning again": [said(reasoning="a"), said("b"), said(reasoning="c"), said("d")],
    "calls of all kinds": [
        said("", None, call(0, "patch")),
        said("", None, call(0, None, '{"input": "*** \\u00e9')),
        said("", None, call(0, None, '\\n+1"}')),
        said("", None, call(1, "mcp__barn__count", '{"year": 1}')),
        said("", None, call(2, "nobody", "not JSON")),
    ],
    "nothing": [said()],
}


def told(
    deltas: Sequence[Delta], *, incomplete: bool = False, **options: Any
) -> tuple[list[Any], list[dict[str, Any]]]:
    """The events and the items of an answer."""
    items = OutputItems(toolbox_of(), lambda rows: "", **options)
    written = b"".join([*map(items.feed, deltas), items.end(incomplete=incomplete)]).decode()
    events = [json.loads(block.partition("\ndata: ")[2]) for block in written.split("\n\n") if block]
    names = [block.partition("\n")[0].removeprefix("event: ") for block in written.split("\n\n") if block]
    assert names == [event["type"] for event in events]
    return events, [json.loads(item) for item in items.written]


def strange(model: BaseModel, path: str = "") -> list[str]:
    """Fields that the SDK's types don't have; the SDK keeps them as they are."""
    found = [f"{path}.{name}" for name in model.model_extra or {}]
    for name in type(model).model_fields:
        value = getattr(model, name)
        for one in value if isinstance(value, list) else [value]:
            found += strange(one, f"{path}.{name}") if isinstance(one, BaseModel) else []
    return found


@pytest.mark.parametrize("incomplete", [False, True])
@pytest.mark.parametrize("deltas", ANSWERS.values(), ids=ANSWERS.keys())
def test_events_are_the_sdks_numbered_and_add_up_to_the_items(deltas: list[Delta], incomplete: bool) -> None:
    events, items = told(deltas, incomplete=incomplete, encrypted=True)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        # OpenAI sends these, the status of a custom tool's call and the name at a call's end, without types for them.
        assert set(strange(EVENT.validate_python(event, strict=True))) <= {".item.status", ".name"}
    for item in items:
        ITEM.validate_python(item, strict=True)
    assert [event["item"] for event in events if event["type"].endswith("output_item.done")] == items
    added = {event["item"]["id"]: event["output_index"] for event in events if event["type"].endswith("item.added")}
    assert [item["id"] for item in items] == sorted(added, key=lambda name: added[name])
    for item in items:
        deltas_of = [event["delta"] for event in events if event.get("item_id") == item["id"] and "delta" in event]
        text = item.get("arguments", item.get("input"))
        assert "".join(deltas_of) == (text if text is not None else item["content"][0]["text"])
    statuses = {item["status"] for item in items[:-1]}
    assert statuses <= {"completed"}
    if incomplete and items and items[-1]["type"] != "reasoning":
        assert items[-1]["status"] == "incomplete"


def test_calls_come_back_with_the_names_that_their_tools_had() -> None:
    _, items = told(ANSWERS["calls of all kinds"])
    assert [(item["type"], item["name"], item.get("namespace")) for item in items] == [
        ("custom_tool_call", "patch", None),
        ("function_call", "count", "mcp__barn"),
        ("function_call", "nobody", None),
    ]
    assert items[0]["input"] == "*** é\n+1"


def test_the_end_of_a_call_that_comes_late_isnt_lost() -> None:
    """Parsers that stream may keep the last of a call back until the answer ends."""
    late = [
        said("", None, call(0, "f", '{"a": 1')),
        said("", None, call(1, "f", "{}")),
        said("", None, call(0, None, "}")),
    ]
    events, items = told(late)
    assert [item["arguments"] for item in items] == ['{"a": 1}', "{}"]
    assert len([event for event in events if event["type"].endswith("item.done")]) == 2


async def test_a_document_has_the_items_of_its_stream() -> None:
    async def no_logprobs(rows: object) -> str:
        return ""

    for deltas in ANSWERS.values():
        _, streamed = told(deltas)
        items = OutputItems(toolbox_of(), lambda rows: "", streamed=False)
        for delta in deltas:
            await items.take(delta, no_logprobs)
        assert items.end(incomplete=False) == b""
        whole = [json.loads(item) for item in items.written]
        assert [{**item, "id": ""} for item in whole] == [{**item, "id": ""} for item in streamed]


@pytest.mark.vllm
@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "nothing"])
def test_vllms_processor_tells_the_same(name: str) -> None:
    """But for ids, an empty first piece of a call's arguments, and what vLLM leaves out of custom calls."""
    from vllm.entrypoints.generate.base.protocol import DeltaFunctionCall, DeltaMessage, DeltaToolCall
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.entrypoints.openai.responses.streaming_events import SimpleStreamingEventProcessor, split_delta

    request = ResponsesRequest.model_validate({"model": "m", "input": "x", "tools": TOOLS})
    processor = SimpleStreamingEventProcessor(tools=request.tools)
    theirs: list[Any] = []
    for delta in ANSWERS[name]:
        calls = [
            DeltaToolCall(
                index=one.index,
                id=one.id,
                type="function",
                function=DeltaFunctionCall(name=one.name, arguments=one.arguments),
            )
            for one in delta.tool_calls
        ]
        message = DeltaMessage(content=delta.text or None, reasoning=delta.reasoning, tool_calls=calls)
        for part in split_delta(message):
            target, one = processor.resolve_target_state(part)
            if processor.needs_transition(target, one):
                theirs += [*processor.close_current(), *processor.open(target, one)]
            theirs += processor.emit_delta(part, None)
    theirs += processor.close_current()
    ours, _ = told(ANSWERS[name])
    assert [_comparable(event) for event in ours] == [
        _comparable(event.model_dump(mode="json", by_alias=True, exclude_none=True))
        for event in theirs
        if getattr(event, "delta", "said") != ""
    ]


def _comparable(event: dict[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in event.items() if key not in ("sequence_number", "item_id")}
    if "item" in fields:
        item = {key: value for key, value in fields["item"].items() if key != "id"}
        if item["type"] == "custom_tool_call":
            item.pop("status", None)
        fields["item"] = item
    return fields


HISTORY: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Count."}]},
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "I count."}],
    },
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "One moment.", "annotations": []}],
    },
    {"type": "function_call", "call_id": "c1", "name": "count", "namespace": "mcp__barn", "arguments": '{"year": 1}'},
    {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "4711"},
    {"type": "function_call_output", "call_id": "c2", "output": "x"},
    {"type": "custom_tool_call", "call_id": "c3", "name": "patch", "input": "*** “é”\n"},
    {"type": "custom_tool_call_output", "call_id": "c3", "output": "Done"},
    {"role": "assistant", "content": "4711."},
    {"role": "assistant", "content": "I said so."},
    {"role": "user", "content": "Thanks."},
]


@pytest.mark.vllm
@pytest.mark.parametrize("instructions", [None, "You count."])
def test_vllm_makes_the_same_messages(instructions: str | None) -> None:
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.entrypoints.openai.responses.utils import construct_input_messages, construct_tool_dicts

    fields = {"model": "m", "input": HISTORY, "tools": TOOLS}
    request = ResponsesRequest.model_validate(fields)
    theirs = construct_input_messages(request_instructions=instructions, request_input=request.input)
    conversation, _ = body_of(input=HISTORY, tools=TOOLS, instructions=instructions).prompt_source()
    # vLLM leaves a user's parts for the chat template to join.
    joined = [
        {**message, "content": "".join(part["text"] for part in message["content"])}
        if isinstance(message.get("content"), list)
        else message
        for message in theirs
    ]
    assert [_plain(message) for message in conversation.messages] == [_plain(message) for message in joined]
    named = [tool["function"]["name"] for tool in construct_tool_dicts(request.tools, "auto") or []]
    assert [tool["function"]["name"] for tool in conversation.tools] == named


def _plain(message: Any) -> dict[str, Any]:
    return {key: value for key, value in dict(message).items() if value is not None and key != "type"}


def test_encrypted_reasoning_is_read_again_and_another_servers_is_passed_over() -> None:
    _, (item,) = told([said(reasoning="I count “é”.")], encrypted=True)
    sent = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": item["encrypted_content"]}
    foreign = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAAB-what-only-OpenAI-reads"}
    user = {"role": "user", "content": "x"}
    conversation, _ = body_of(input=[user, sent, foreign, user]).prompt_source()
    assert [message["role"] for message in conversation.messages] == ["user", "assistant", "user"]
    assert conversation.messages[1] == {"role": "assistant", "reasoning": "I count “é”."}

"""Anthropic's Messages API with vLLM's conversions (`vllm.entrypoints.anthropic`): requests, documents, events.

vLLM converts between Anthropic's format and that of OpenAI's chat API; between the two the gateway runs its own
pipeline. A streamed token costs about 30 microseconds here, two pydantic objects of vLLM's among them: more than on the
chat route, and the price of not writing the conversion again.
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import partial_json_parser
from vllm.entrypoints.anthropic.protocol import AnthropicCountTokensRequest
from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionResponse

from engine.base import Conversation, Delta, JSONValue, ResponseFormat
from engine.event_text import event_bytes
from engine.failures import BARE, translate
from engine.json_text import parsed_object

TURNS_AT_ONCE = 250  # validating them takes 5 ms

Usage = Callable[[], Mapping[str, object]]


class MessagesFormat:
    """Without state. `usage` is OpenAI's `usage` as it stands when it is called; its `estimated_cost` is passed on."""

    def conversation(self, request: Mapping[str, JSONValue]) -> Conversation:
        """What a request's `messages`, `system`, tools and thinking come to; the sampling parameters are left alone.

        An assistant's message at the end is the beginning of the answer, as in Anthropic's API. Raises PromptError.
        """
        try:
            fields, chat, messages, last_role = _converted(request)
        except BARE as error:
            raise translate(error) from error
        choice = chat.tool_choice or "none"
        return Conversation(
            messages=messages,
            tools=[tool.model_dump(exclude_none=True) for tool in chat.tools or ()],
            tool_choice=choice if isinstance(choice, str) else choice.model_dump(),
            parallel_tool_calls=chat.parallel_tool_calls is not False,
            response_format=_constraint(fields),
            reasoning_effort=chat.reasoning_effort,
            continue_final=last_role == "assistant",
            schema_field="input_schema",
        )

    async def document(
        self, deltas: AsyncIterator[Delta], answer_id: str, model: str, usage: Usage
    ) -> dict[str, object]:
        """The whole answer. Reads all deltas."""
        text, reasoning, end = "", "", None
        calls: dict[int, dict[str, str]] = {}
        async for delta in deltas:
            text += delta.text
            reasoning += delta.reasoning or ""
            for call in delta.tool_calls:
                held = calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                held["id"], held["name"] = call.id or held["id"], call.name or held["name"]
                held["arguments"] += call.arguments
            end = delta if delta.finish_reason is not None else end
        message = {
            "role": "assistant",
            "content": text,
            "reasoning": reasoning or None,
            "tool_calls": [_whole_call(call) for _, call in sorted(calls.items())],
        }
        choice = {"index": 0, "message": message, **_end(end)}
        counted = usage()
        chat = ChatCompletionResponse.model_validate(
            {"id": answer_id, "model": model, "choices": [choice], "usage": counted}
        )
        converted = AnthropicServingMessages.messages_full_converter(None, chat).model_dump(
            mode="json", exclude_none=True
        )
        converted["usage"]["estimated_cost"] = counted["estimated_cost"]
        return {"stop_reason": None, "stop_sequence": None, **converted}

    async def events(
        self, deltas: AsyncIterator[Delta], answer_id: str, model: str, usage: Usage
    ) -> AsyncIterator[bytes]:
        """The answer as server-sent events, each with its name. Raises what `deltas` raises, after what came before."""
        head = {"id": answer_id, "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        failures: list[Exception] = []

        async def chunks() -> AsyncIterator[str]:
            # The converter takes the first chunk for `message_start` and drops what else it holds.
            yield _chunk(head, [{"index": 0, "delta": {"role": "assistant", "content": ""}}], usage())
            try:
                async for delta in deltas:
                    yield _chunk(head, [_choice(delta)])
            except Exception as error:  # the converter would make an event of its own of it, and log it
                failures.append(error)
                return
            yield _chunk(head, [], usage())
            yield "data: [DONE]"

        async for event in AnthropicServingMessages.message_stream_converter(None, chunks()):
            if event.startswith("event: error\n"):
                raise RuntimeError("vLLM's converter failed")  # its event holds the words of whatever failed in it
            yield _with_cost(event, usage) if event.startswith("event: message_delta\n") else event_bytes(event)
        if failures:
            raise failures[0]


def _converted(
    request: Mapping[str, JSONValue],
) -> tuple[AnthropicCountTokensRequest, ChatCompletionRequest, list[Mapping[str, JSONValue]], str]:
    """vLLM's conversion, some turns at a time: its validation of thousands would hold up all threads.

    Also the role of the last turn.
    """
    turns = request["messages"]
    assert isinstance(turns, Sequence)
    fields = AnthropicCountTokensRequest.model_validate({**request, "messages": turns[:TURNS_AT_ONCE]})
    chat = AnthropicServingMessages.to_chat_completion_request(fields)
    messages, last = list(chat.messages), fields.messages[-1:]
    for start in range(TURNS_AT_ONCE, len(turns), TURNS_AT_ONCE):
        rest = {"model": request["model"], "messages": turns[start : start + TURNS_AT_ONCE]}
        more = AnthropicCountTokensRequest.model_validate(rest)
        messages += AnthropicServingMessages.to_chat_completion_request(more).messages
        last = more.messages[-1:]
    return fields, chat, messages, last[0].role if last else ""


def _constraint(request: AnthropicCountTokensRequest) -> ResponseFormat | None:
    form = request.output_config.format if request.output_config is not None else None
    if form is None:
        return None
    return ResponseFormat("json_schema", json_schema=form.json_schema, place="output_config.format.schema")


def _chunk(
    head: Mapping[str, object], choices: list[dict[str, object]], usage: Mapping[str, object] | None = None
) -> str:
    return f"data: {json.dumps({**head, 'choices': choices, 'usage': usage})}"


def _choice(delta: Delta) -> dict[str, object]:
    fields: dict[str, object] = {"content": delta.text, "reasoning": delta.reasoning}
    if delta.tool_calls:
        fields["tool_calls"] = [
            {
                "index": call.index,
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in delta.tool_calls
        ]
    return {"index": 0, "delta": fields, **_end(delta)}


def _end(delta: Delta | None) -> dict[str, object]:
    return {} if delta is None else {"finish_reason": delta.finish_reason, "stop_reason": delta.stop_reason}


def _whole_call(call: Mapping[str, str]) -> dict[str, object]:
    function = {"name": call["name"], "arguments": json.dumps(_arguments(call["arguments"]))}
    return {"id": call["id"], "type": "function", "function": function}


def _arguments(text: str) -> dict[str, object]:
    """A tool's `input` is an object in Anthropic's format, even where the model's JSON was cut off: what is there."""
    whole = parsed_object(text)
    if whole is not None:
        return whole
    try:
        found = partial_json_parser.loads(text)
        # Written anew, since it reads numbers as Python does.
        return parsed_object(json.dumps(found)) or {}
    except (ValueError, IndexError, AssertionError, RecursionError):  # what its callers in vLLM expect of it
        return {}


def _with_cost(event: str, usage: Usage) -> bytes:
    name, _, data = event.partition("\ndata: ")
    fields = json.loads(data)
    fields["usage"]["estimated_cost"] = usage()["estimated_cost"]
    return f"{name}\ndata: {json.dumps(fields)}\n\n".encode()

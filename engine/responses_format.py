"""OpenAI's Responses API with vLLM's conversions (`vllm.entrypoints.openai.responses`): input, output items, events.

vLLM's serving class keeps answers in memory and runs built-in tools; its conversions need neither, and are all that is
used here.
"""

from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring as quote
from typing import Any

from openai.types.responses import ResponseOutputItemDoneEvent
from openai.types.responses.response_output_text import Logprob, LogprobTopLogprob
from vllm.entrypoints.generate.base.protocol import DeltaFunctionCall, DeltaMessage, DeltaToolCall, FunctionCall
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.streaming_events import (
    SimpleStreamingEventProcessor,
    _StateType,
    split_delta,
)
from vllm.entrypoints.openai.responses.utils import (
    build_response_output_items,
    construct_input_messages,
    construct_tool_dicts,
)

from engine.base import Conversation, Delta, JSONValue, ResponseFormat, TokenLogprob, ToolCallDelta
from engine.failures import BARE, translate


class ResponsesFormat:
    """Without state."""

    def conversation(self, request: Mapping[str, JSONValue], *, continue_final: bool) -> Conversation:
        """What a request's `input`, `instructions`, tools, `text` and `reasoning` come to. Raises PromptError."""
        try:
            fields = ResponsesRequest.model_validate(dict(request))
            messages = construct_input_messages(request_instructions=fields.instructions, request_input=fields.input)
            tools = construct_tool_dicts(fields.tools, fields.tool_choice) or ()
        except BARE as error:
            raise translate(error, param="input") from error
        choice = fields.tool_choice
        return Conversation(
            messages=messages,
            tools=[_without_nulls(tool) for tool in tools],
            tool_choice=choice if isinstance(choice, str) else {"type": "function", "function": {"name": choice.name}},
            parallel_tool_calls=fields.parallel_tool_calls is not False,
            response_format=_constraint(fields),
            reasoning_effort=fields.reasoning.effort if fields.reasoning is not None else None,
            continue_final=continue_final,
            schema_field="parameters",
        )

    def items(self) -> "Items":
        return Items()


class Items:
    """The output of one answer, put together from its deltas: as a list, and as the events that tell of it.

    `number` is that of the next event.
    """

    def __init__(self) -> None:
        self.number = 0
        self._processor = SimpleStreamingEventProcessor()
        self._plain: list[str] = []  # written, and not told to the processor yet
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, FunctionCall] = {}
        self._logprobs: list[Logprob] = []

    def add(self, delta: Delta) -> None:
        """For `whole`."""
        self._text.append(delta.text)
        self._reasoning.append(delta.reasoning or "")
        for call in delta.tool_calls:
            held = self._calls.setdefault(call.index, FunctionCall(name="", arguments=""))
            held.id, held.name = call.id or held.id, call.name or held.name
            held.arguments += call.arguments
        self._logprobs += _logprobs(delta.logprobs)

    def whole(self, *, incomplete: bool) -> list[dict[str, Any]]:
        """The items of all deltas that were added."""
        items = build_response_output_items(
            "".join(self._reasoning),
            "".join(self._text),
            [call for _, call in sorted(self._calls.items())],
            self._logprobs or None,
        )
        return _dumped(items, incomplete)

    def feed(self, delta: Delta) -> bytes:
        """The events of one delta. A plain token of a text that has begun costs one string and no pydantic object."""
        state = self._processor.state
        plain = delta.text and not (delta.reasoning or delta.tool_calls or delta.logprobs)
        if plain and state.current_state is _StateType.CONTENT:
            self._plain.append(delta.text)
            return self._text_delta(state, delta.text)
        self._catch_up()
        message = DeltaMessage(
            content=delta.text or None,
            reasoning=delta.reasoning or None,
            tool_calls=[_call(call) for call in delta.tool_calls],
        )
        logprobs = _logprobs(delta.logprobs)
        events: list[Any] = []
        for part in split_delta(message):
            target, call = self._processor.resolve_target_state(part)
            if target is _StateType.NONE:
                continue
            if self._processor.needs_transition(target, call):
                events += [*self._processor.close_current(), *self._processor.open(target, call)]
            events += self._processor.emit_delta(part, None, lambda _: logprobs)
        return self._written(events)

    def end(self, *, incomplete: bool) -> bytes:
        """The events that close the last item; `incomplete` says that it was cut off."""
        self._catch_up()
        events: list[Any] = self._processor.close_current()
        for event in events:
            item: Any = event.item if isinstance(event, ResponseOutputItemDoneEvent) else None
            if incomplete and item is not None and item.type != "reasoning":
                item.status = "incomplete"
        return self._written(events)

    def streamed(self) -> list[dict[str, Any]]:
        """The items that the events told of."""
        return _dumped(self._processor.output_items, incomplete=False)

    def _catch_up(self) -> None:
        self._processor.state.accumulated_text += "".join(self._plain)
        self._plain.clear()

    def _written(self, events: Sequence[Any]) -> bytes:
        written = b""
        for event in events:
            event.sequence_number = self.number
            self.number += 1
            data = event.model_dump_json(by_alias=True, exclude_none=True)
            written += f"event: {event.type}\ndata: {data}\n\n".encode()
        return written

    def _text_delta(self, state: Any, text: str) -> bytes:
        number, self.number = self.number, self.number + 1
        return (
            'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
            f'"sequence_number":{number},"output_index":{state.output_index},"content_index":{state.content_index},'
            f'"item_id":"{state.current_item_id}","delta":{quote(text)},"logprobs":[]}}\n\n'
        ).encode()


def _constraint(request: ResponsesRequest) -> ResponseFormat | None:
    found = request.extract_structured_outputs()
    if found is None:
        return None
    if found.json_object:
        return ResponseFormat("json_object", place="text.format")
    return ResponseFormat("json_schema", json_schema=found.json, place="text.format.schema")


def _without_nulls(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {name: value for name, value in tool["function"].items() if value is not None}
    return {"type": "function", "function": function}


def _call(call: ToolCallDelta) -> DeltaToolCall:
    function = DeltaFunctionCall(name=call.name, arguments=call.arguments)
    return DeltaToolCall(index=call.index, id=call.id, type="function", function=function)


def _logprobs(logprobs: Sequence[TokenLogprob] | None) -> list[Logprob]:
    return [
        Logprob(
            token=one.text,
            logprob=one.logprob,
            bytes=list(one.text.encode()),
            top_logprobs=[
                LogprobTopLogprob(token=top.text, logprob=top.logprob, bytes=list(top.text.encode())) for top in one.top
            ],
        )
        for one in logprobs or ()
    ]


def _dumped(items: Sequence[Any], incomplete: bool) -> list[dict[str, Any]]:
    dumped = [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in items]
    if incomplete and dumped and "status" in dumped[-1]:
        dumped[-1]["status"] = "incomplete"
    return dumped

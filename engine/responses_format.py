"""OpenAI's Responses API with vLLM's conversions (`vllm.entrypoints.openai.responses`): input, output items, events.

vLLM's serving class keeps answers in memory and runs built-in tools; its conversions need neither, and are all that is
used here.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from json.encoder import encode_basestring as quote
from typing import Any

from openai.types.responses import ResponseOutputItemDoneEvent
from openai.types.responses.response_output_text import Logprob
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

from engine.base import Conversation, Delta, JSONValue, ResponseFormat, ToolCallDelta
from engine.event_text import event_bytes
from engine.failures import BARE, translate
from engine.tokens import TokenLogprobs

WriteLogprobs = Callable[[Iterable[TokenLogprobs]], str]

# Stands for the log probabilities of one message: as vLLM's objects they would take milliseconds for each token. What
# the model says can't look like it in JSON, where a quotation mark within a string is escaped.
_MARK = re.compile(r'\{"token": ?"logprobs of message (\d+)"[^{}]*\}')


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
            param="input",
            schema_field="parameters",
        )

    def items(self, write: WriteLogprobs) -> "Items":
        """`write` gives log probabilities as the inside of a JSON list."""
        return Items(write)


class Items:
    """The output of one answer, put together from its deltas: as a list, and as the events that tell of it.

    `number` is that of the next event. What `whole` and `streamed` give becomes JSON through `filled`.
    """

    def __init__(self, write: WriteLogprobs) -> None:
        self.number = 0
        self.rows: list[Collection[TokenLogprobs]] = []  # of the deltas that were added
        self._write = write
        self._processor = SimpleStreamingEventProcessor()
        self._plain: list[str] = []  # written, and not told to the processor yet
        self._held: list[Collection[TokenLogprobs]] = []  # of tokens whose text is to come: half a character
        self._of_message: list[str] = []  # log probabilities that were written
        self._of_messages: list[str] = []  # the same, of those that are complete
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, FunctionCall] = {}

    def add(self, delta: Delta) -> None:
        """For `whole`."""
        self._text.append(delta.text)
        self._reasoning.append(delta.reasoning or "")
        for call in delta.tool_calls:
            held = self._calls.setdefault(call.index, FunctionCall(name="", arguments=""))
            held.id, held.name = call.id or held.id, call.name or held.name
            held.arguments += call.arguments
        if delta.logprobs is not None:
            self.rows.append(delta.logprobs)

    def whole(self, logprobs: str, *, incomplete: bool) -> list[dict[str, Any]]:
        """The items of all deltas that were added. `logprobs` are their `rows`, written."""
        self._of_messages = [logprobs]
        items = build_response_output_items(
            "".join(self._reasoning),
            "".join(self._text),
            [call for _, call in sorted(self._calls.items())],
            [_mark(0)] if self.rows else None,
        )
        return _dumped(items, incomplete)

    def filled(self, written: str) -> str:
        """JSON of the items with their log probabilities in it."""
        if not self._of_messages:
            return written
        return _MARK.sub(lambda mark: self._of_messages[int(mark[1])], written)

    def feed(self, delta: Delta) -> bytes:
        """The events of one delta. A plain token of a text that has begun costs one string and no pydantic object."""
        state = self._processor.state
        if delta.text and not (delta.reasoning or delta.tool_calls):
            begins = state.current_state is not _StateType.CONTENT
            beginning = self._turn_to(_StateType.CONTENT, None, delta) if begins else b""
            return beginning + self._text_delta(state, delta)
        if delta.logprobs is not None:
            self._held = [] if delta.reasoning or delta.tool_calls else [*self._held, delta.logprobs]
        written = b""
        message = DeltaMessage(
            content=delta.text or None,
            reasoning=delta.reasoning or None,
            tool_calls=[_call(call) for call in delta.tool_calls],
        )
        for part in split_delta(message):
            target, call = self._processor.resolve_target_state(part)
            if target is _StateType.NONE:
                continue
            if self._processor.needs_transition(target, call):
                written += self._turn_to(target, call, delta)
            if target is _StateType.CONTENT:
                written += self._text_delta(state, delta)
            else:
                written += self._written(self._processor.emit_delta(part, None))
        return written

    def _turn_to(self, target: _StateType, call: Any, delta: Delta) -> bytes:
        """The events that close the item that is open and open the next one."""
        written = self._closed()
        opened = self._written(self._processor.open(target, call))
        if target is _StateType.CONTENT and delta.logprobs is not None:
            self._processor.state.accumulated_logprobs = [_mark(len(self._of_messages))]
        return written + opened

    def _closed(self, *, incomplete: bool = False) -> bytes:
        state = self._processor.state
        if state.current_state is _StateType.CONTENT:
            state.accumulated_text += "".join(self._plain)
            self._plain.clear()
            if state.accumulated_logprobs:
                self._of_messages.append(_listed([*self._of_message, *map(self._write, self._held)]))
                self._of_message, self._held = [], []
        events: list[Any] = self._processor.close_current()
        for event in events:
            item: Any = event.item if isinstance(event, ResponseOutputItemDoneEvent) else None
            if incomplete and item is not None and item.type != "reasoning":
                item.status = "incomplete"
        return self._written(events)

    def end(self, *, incomplete: bool) -> bytes:
        """The events that close the last item; `incomplete` says that it was cut off."""
        return self._closed(incomplete=incomplete)

    def streamed(self) -> list[dict[str, Any]]:
        """The items that the events told of."""
        return _dumped(self._processor.output_items, incomplete=False)

    def _written(self, events: Sequence[Any]) -> bytes:
        written = b""
        for event in events:
            event.sequence_number = self.number
            self.number += 1
            data = self.filled(event.model_dump_json(by_alias=True, exclude_none=True))
            written += event_bytes(f"event: {event.type}\ndata: {data}\n\n")
        return written

    def _text_delta(self, state: Any, delta: Delta) -> bytes:
        number, self.number = self.number, self.number + 1
        self._plain.append(delta.text)
        logprobs = ""
        if delta.logprobs is not None:
            logprobs = _listed(map(self._write, [*self._held, delta.logprobs]))
            self._held = []
            self._of_message.append(logprobs)
        event = (
            'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
            f'"sequence_number":{number},"output_index":{state.output_index},"content_index":{state.content_index},'
            f'"item_id":"{state.current_item_id}","delta":{quote(delta.text)},"logprobs":[{logprobs}]}}\n\n'
        )
        return event.encode() if event.isascii() else event_bytes(event)


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


def _listed(written: Iterable[str]) -> str:
    return ",".join(filter(None, written))


def _mark(message: int) -> Logprob:
    return Logprob(token=f"logprobs of message {message}", logprob=0, bytes=[], top_logprobs=[])


def _dumped(items: Sequence[Any], incomplete: bool) -> list[dict[str, Any]]:
    dumped = [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in items]
    if incomplete and dumped and "status" in dumped[-1]:
        dumped[-1]["status"] = "incomplete"
    return dumped

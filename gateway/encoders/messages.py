"""The answers of `POST /v1/messages`: one document, or a stream of events, each with its name.

An answer is a row of blocks: thinking, text, calls. In a stream each is begun, grows piece by piece and is ended before
the next one begins; a piece of a text costs one formatted string. What Anthropic's clients need beside that: a
signature on each thinking block, which is made up, and a text, if need be an empty one, where nothing was said.
"""

import json
import secrets
from json.encoder import encode_basestring as quote
from typing import Literal

from pydantic_core import from_json

from engine.base import Delta, FinishReason, ToolCallDelta
from engine.event_text import event_bytes
from engine.json_text import parsed_object
from gateway.encoders.chunks import compact
from gateway.request.metered_generation import Metered
from gateway.schemas.anthropic import Message, MessageText, MessageThinking, MessageToolUse, MessageUsage, StopReason
from pricing.money import usd_number

Kind = Literal["thinking", "text", "tool_use"]
Block = MessageText | MessageThinking | MessageToolUse


async def message(metered: Metered, model: str) -> Message:
    """The whole answer. Reads all deltas."""
    text: list[str] = []
    thinking: list[str] = []
    calls: dict[int, _Call] = {}
    end: Delta | None = None
    async for delta in metered:
        text.append(delta.text)
        thinking.append(delta.reasoning or "")
        for call in delta.tool_calls:
            calls.setdefault(call.index, _Call()).add(call)
        end = delta if delta.finish_reason is not None else end
    content: list[Block] = []
    if thought := "".join(thinking):
        content.append({"type": "thinking", "thinking": thought, "signature": _signature()})
    said = "".join(text)
    if said or not (thought or calls):
        content.append({"type": "text", "text": said})
    content += [call.block() for _, call in sorted(calls.items())]
    reason, sequence = stop_of(end, called=bool(calls), whole=bool(calls))
    return _message(metered, model, content, reason, sequence, _paid(metered))


def stop_of(end: Delta | None, *, called: bool, whole: bool) -> tuple[StopReason | None, str | None]:
    """Why an answer ended. `called` says that it has calls, `whole` that the last of them wasn't cut off: one that a
    stop sequence ended must not be run."""
    reason: FinishReason | None = end.finish_reason if end is not None else None
    if end is None or reason == "length":
        return ("max_tokens" if end is not None else None), None
    if reason not in ("stop", "tool_calls"):
        return None, None
    if called and whole:
        return "tool_use", None
    if isinstance(end.stop_reason, str):
        return "stop_sequence", end.stop_reason
    return ("tool_use" if called or reason == "tool_calls" else "end_turn"), None


class MessageEvents:
    """The answer as server-sent events, from `message_start` to `message_stop`."""

    def __init__(self, metered: Metered, model: str) -> None:
        self._metered = metered
        self._model = model
        self._begun = False
        self._end: Delta | None = None
        self._open: Kind | None = None
        self._head = ""  # of each piece of the block that is open
        self._index = 0  # of the block that is open, or the next one
        self._calls: dict[int, _StreamedCall] = {}
        self._held: list[str] = []  # a text that came within a call

    def feed(self, delta: Delta) -> bytes:
        text = delta.text
        if self._open == "text" and text and delta.finish_reason is None and not (delta.reasoning or delta.tool_calls):
            event = f"{self._head}{quote(text)}}}}}\n\n"
        else:
            event = "".join(self._events(delta))
        return event.encode() if event.isascii() else event_bytes(event)

    def _events(self, delta: Delta) -> list[str]:
        """In the order in which a model says them: thinking, text, calls."""
        events = [] if self._begun else [self._start()]
        if delta.reasoning:
            events += self._turn_to("thinking")
            events.append(self._piece(delta.reasoning))
        if delta.text and self._open == "tool_use":
            self._held.append(delta.text)
        elif delta.text:
            events += self._turn_to("text")
            events.append(self._piece(delta.text))
        for call in delta.tool_calls:
            events += self._called(call)
        if delta.finish_reason is not None:
            self._end = delta
        return events

    def end(self) -> bytes:
        events = [] if self._begun else [self._start()]
        if self._index == 0 and self._open is None:
            events += self._turn_to("text")
        last = next(reversed(self._calls.values()), None)
        whole = last is not None and last.is_whole
        events += self._close()
        for call in self._calls.values():
            events += call.close()
        reason, sequence = stop_of(self._end, called=last is not None, whole=whole)
        stop = {"stop_reason": reason, "stop_sequence": sequence}
        events.append(_event("message_delta", {"delta": stop, "usage": _paid(self._metered)}))
        events.append(_event("message_stop", {}))
        return event_bytes("".join(events))

    def _start(self) -> str:
        self._begun = True
        begun = _message(self._metered, self._model, [], None, None, _usage(self._metered))
        return _event("message_start", {"message": begun})

    def _piece(self, said: str) -> str:
        return f"{self._head}{quote(said)}}}}}\n\n"

    def _called(self, delta: ToolCallDelta) -> list[str]:
        call, events = self._calls.get(delta.index), []
        if call is None:
            events = self._close()
            block: Block = {"type": "tool_use", "id": delta.id or "", "name": delta.name or "", "input": {}}
            call = self._calls[delta.index] = _StreamedCall(self._index)
            events += self._begin("tool_use", block)
        if delta.arguments and not call.closed:
            call.arguments.append(delta.arguments)
            events.append(f"{_head(call.index, 'tool_use')}{quote(delta.arguments)}}}}}\n\n")
        return events

    def _turn_to(self, kind: Literal["thinking", "text"]) -> list[str]:
        if self._open == kind:
            return []
        block: Block = {"type": "text", "text": ""}
        if kind == "thinking":
            block = {"type": "thinking", "thinking": "", "signature": ""}
        return [*self._close(), *self._begin(kind, block)]

    def _begin(self, kind: Kind, block: Block) -> list[str]:
        self._open = kind
        self._head = _head(self._index, kind)
        return [_event("content_block_start", {"index": self._index, "content_block": block})]

    def _close(self) -> list[str]:
        """The events that end the block that is open, and a text that came within it.

        A call that isn't whole stays open: a parser may say its end after the beginning of the next one.
        """
        if self._open is None:
            return []
        events = []
        if self._open == "thinking":
            delta = {"type": "signature_delta", "signature": _signature()}
            events.append(_event("content_block_delta", {"index": self._index, "delta": delta}))
        if self._open == "tool_use":
            for call in self._calls.values():
                events += call.close() if call.is_whole else []
        else:
            events.append(_stop(self._index))
        self._open = None
        self._index += 1
        if self._held:
            said = "".join(self._held)
            self._held.clear()
            events += [*self._turn_to("text"), self._piece(said), *self._close()]
        return events


class _StreamedCall:
    """A call whose block was begun."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.arguments: list[str] = []
        self.closed = False

    @property
    def is_whole(self) -> bool:
        try:
            json.loads("".join(self.arguments))
        except ValueError:
            return False
        return True

    def close(self) -> list[str]:
        if self.closed:
            return []
        self.closed = True
        return [_stop(self.index)]


_DELTAS: dict[Kind, tuple[str, str]] = {
    "thinking": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "tool_use": ("input_json_delta", "partial_json"),
}


class _Call:
    """A call, put together from its pieces."""

    def __init__(self) -> None:
        self._id, self._name = "", ""
        self._arguments: list[str] = []

    def add(self, delta: ToolCallDelta) -> None:
        self._id, self._name = delta.id or self._id, delta.name or self._name
        self._arguments.append(delta.arguments)

    def block(self) -> MessageToolUse:
        arguments = arguments_of("".join(self._arguments))
        return {"type": "tool_use", "id": self._id, "name": self._name, "input": arguments}


def arguments_of(text: str) -> dict[str, object]:
    """A tool's `input` is an object in Anthropic's format, even where the model's JSON was cut off: what is there."""
    whole = parsed_object(text)
    if whole is not None:
        return whole
    try:
        found = from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return {}
    # Written anew: what JSON can't say is read differently there.
    return parsed_object(json.dumps(found)) or {}


def _message(
    metered: Metered,
    model: str,
    content: list[Block],
    reason: StopReason | None,
    sequence: str | None,
    usage: MessageUsage,
) -> Message:
    return {
        "id": metered.job.request_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage,
    }


def _usage(metered: Metered) -> MessageUsage:
    counts = metered.counts
    return {
        "input_tokens": counts.prompt - counts.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counts.cached,
        "output_tokens": counts.completion,
    }


def _paid(metered: Metered) -> MessageUsage:
    """Once all is counted."""
    return {
        **_usage(metered),
        "output_tokens_details": {"thinking_tokens": metered.counts.reasoning},
        "estimated_cost": usd_number(metered.cost),
    }


def _event(name: str, fields: dict[str, object]) -> str:
    return f"event: {name}\ndata: {compact({'type': name, **fields})}\n\n"


def _stop(index: int) -> str:
    return _event("content_block_stop", {"index": index})


def _head(index: int, kind: Kind) -> str:
    """How each piece of a block begins."""
    delta, field = _DELTAS[kind]
    return (
        f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},'
        f'"delta":{{"type":"{delta}","{field}":'
    )


def _signature() -> str:
    return secrets.token_hex(16)

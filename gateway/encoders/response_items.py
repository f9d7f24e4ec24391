"""The output of the Responses API, put together from deltas: its items, and the events that tell of them.

A piece of a text, of reasoning or of a call's arguments costs one formatted string. Items and their other events are
written once each, as JSON; log probabilities come as JSON already, and are put in where an item's text ends.
"""

import json
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable
from json.encoder import encode_basestring as quote
from typing import Literal

from engine.base import Delta, ToolCallDelta
from engine.event_text import event_bytes
from engine.tokens import TokenLogprobs
from gateway.encoders.chunks import compact
from gateway.encoders.custom_input import CustomInput
from gateway.protocol.response_items import concealed
from gateway.protocol.tools import Toolbox

Fields = dict[str, object]
WriteLogprobs = Callable[[Iterable[TokenLogprobs]], str]
WriteAll = Callable[[Iterable[Collection[TokenLogprobs]]], Awaitable[str]]
TextKind = Literal["message", "reasoning"]

# For each kind of text: its item's prefix, its events, its part.
_KINDS: dict[TextKind, tuple[str, str, str]] = {
    "message": ("msg", "output_text", "output_text"),
    "reasoning": ("rs", "reasoning_text", "reasoning_text"),
}


class OutputItems:
    """Each delta that is fed gives its events; `written` are the items as JSON, once they have ended.

    `number` is that of the next event. `write` gives log probabilities as the inside of a JSON list. With `encrypted`
    reasoning comes a second time, as clients send it back that keep nothing else of it. Where it isn't `streamed`, no
    event is made.
    """

    def __init__(
        self, toolbox: Toolbox, write: WriteLogprobs, *, encrypted: bool = False, streamed: bool = True
    ) -> None:
        self.number = 0
        self.written: list[str] = []
        self._toolbox = toolbox
        self._write = write
        self._encrypted = encrypted
        self._streamed = streamed
        self._text: _Text | None = None
        self._calls: dict[int, _Call] = {}
        self._held: list[Collection[TokenLogprobs]] = []  # of tokens whose text is to come: half a character

    def feed(self, delta: Delta) -> bytes:
        """The events of one delta: a plain token of a text that has begun is one string."""
        text = self._text
        if text is None or text.kind != "message" or delta.reasoning or delta.tool_calls or not delta.text:
            return event_bytes("".join(self._events(delta, self._rows(delta))))
        event = self._said(text, delta.text, self._rows(delta))
        return event.encode() if event.isascii() else event_bytes(event)

    async def take(self, delta: Delta, write_all: WriteAll) -> None:
        """The same for an answer that comes in one piece: its log probabilities are many."""
        self._events(delta, None if delta.logprobs is None else await write_all([delta.logprobs]))

    def _rows(self, delta: Delta) -> str | None:
        """The log probabilities of a text, with those of tokens before it that had no whole character."""
        if delta.logprobs is None:
            return None
        if not delta.text:
            self._held = [] if delta.reasoning or delta.tool_calls else [*self._held, delta.logprobs]
            return None
        held, self._held = self._held, []
        return _listed(map(self._write, [*held, delta.logprobs]))

    def _events(self, delta: Delta, rows: str | None) -> list[str]:
        """In the order in which a model says them: reasoning, text, calls."""
        events = []
        if delta.reasoning:
            text, begun = self._open("reasoning")
            events += [*begun, self._piece(text, delta.reasoning)]
        if delta.text:
            text, begun = self._open("message")
            events += [*begun, self._said(text, delta.text, rows)]
        for call in delta.tool_calls:
            events += self._call(call)
        return events

    def _said(self, text: "_Text", said: str, rows: str | None) -> str:
        if rows is not None:
            text.logprobs.append(rows)
        return self._piece(text, said, f',"logprobs":[{rows or ""}]')

    def _piece(self, text: "_Text", said: str, more: str = "") -> str:
        text.pieces.append(said)
        number, self.number = self.number, self.number + 1
        return f'{text.head}{number},"delta":{quote(said)}{more}}}\n\n' if self._streamed else ""

    def _open(self, kind: TextKind) -> tuple["_Text", list[str]]:
        """The text that a piece belongs to, with the events that end what was open and begin it."""
        if self._text is not None and self._text.kind == kind:
            return self._text, []
        ended = self._end_text("completed") + self._end_whole_calls()
        text = self._text = _Text(kind, self._next_place())
        if kind == "message":
            item: Fields = {"type": kind, "id": text.id, "role": "assistant", "status": "in_progress", "content": []}
        else:
            item = {"type": kind, "id": text.id, "status": "in_progress", "summary": []}
        added = self._event("response.output_item.added", text.place, {"item": item})
        part = text.part("")
        if kind == "message":
            part["logprobs"] = []
        at: Fields = {"item_id": text.id, "content_index": 0, "part": part}
        return text, [*ended, added, self._event("response.content_part.added", text.place, at)]

    def _end_text(self, status: str) -> list[str]:
        text, self._text = self._text, None
        if text is None:
            return []
        said = "".join(text.pieces)
        logprobs = None
        if text.kind == "message" and text.logprobs:
            logprobs = _listed([*text.logprobs, *map(self._write, self._held)])
        self._held = []
        at: Fields = {"item_id": text.id, "content_index": 0}
        part = text.part(said)
        item: Fields = {"type": text.kind, "id": text.id, "role": "assistant", "status": status, "content": [part]}
        if text.kind == "reasoning":
            item = {"type": text.kind, "id": text.id, "status": "completed", "summary": []}
            item |= {"encrypted_content": concealed(said)} if self._encrypted else {}
            item |= {"content": [part]}
        done = {**at, "text": said, **({"logprobs": []} if text.kind == "message" else {})}
        self.written[text.place] = _with_logprobs(compact(item), logprobs, "}]}")
        return [
            self._event(f"response.{_KINDS[text.kind][1]}.done", text.place, done),
            self._event("response.content_part.done", text.place, {**at, "part": part}, logprobs, "}}"),
            self._event("response.output_item.done", text.place, {"item": item}, logprobs, "}]}}"),
        ]

    def _call(self, delta: ToolCallDelta) -> list[str]:
        call, events = self._calls.get(delta.index), []
        if call is None:
            events = self._end_text("completed") + self._end_whole_calls()
            call = self._calls[delta.index] = _Call(self._toolbox, delta, self._next_place())
            events.append(self._event("response.output_item.added", call.place, {"item": call.item("in_progress")}))
        if call.ended:
            return events  # what a parser says of a call that was whole already
        return [*events, *self._argued(call, call.feed(delta.arguments))]

    def _argued(self, call: "_Call", piece: str) -> list[str]:
        if not piece or not self._streamed:
            return []
        number, self.number = self.number, self.number + 1
        return [f'{call.head}{number},"delta":{quote(piece)}}}\n\n']

    def _end_whole_calls(self) -> list[str]:
        """A parser may say the end of a call after the beginning of the next one: that of a call which isn't whole."""
        whole = [call for call in self._calls.values() if not call.ended and call.is_whole]
        return [event for call in whole for event in self._end_call(call, "completed")]

    def _end_call(self, call: "_Call", status: str) -> list[str]:
        if call.ended:
            return []
        rest = self._argued(call, call.end())
        item = call.item(status)
        self.written[call.place] = compact(item)
        said: Fields = {"item_id": call.id, call.field: call.said, **({} if call.custom else {"name": call.name})}
        return [
            *rest,
            self._event(f"response.{call.event}.done", call.place, said),
            self._event("response.output_item.done", call.place, {"item": item}),
        ]

    def end(self, *, incomplete: bool) -> bytes:
        """The events that end what is open; `incomplete` says that the last item was cut off."""
        last = len(self.written) - 1

        def status(place: int) -> str:
            return "incomplete" if incomplete and place == last else "completed"

        events = self._end_text(status(self._text.place)) if self._text is not None else []
        for call in self._calls.values():
            events += self._end_call(call, status(call.place))
        return event_bytes("".join(events))

    def _next_place(self) -> int:
        self.written.append("")
        return len(self.written) - 1

    def _event(self, name: str, place: int, fields: Fields, logprobs: str | None = None, end: str = "") -> str:
        if not self._streamed:
            return ""
        number, self.number = self.number, self.number + 1
        data = compact({"type": name, "sequence_number": number, "output_index": place, **fields})
        return f"event: {name}\ndata: {_with_logprobs(data, logprobs, end)}\n\n"


class _Text:
    """A message or reasoning that is being said. `head` is how the event of a piece begins, up to its number."""

    __slots__ = ("head", "id", "kind", "logprobs", "pieces", "place")

    def __init__(self, kind: TextKind, place: int) -> None:
        prefix, event, _ = _KINDS[kind]
        self.kind = kind
        self.place = place
        self.id = _new_id(prefix)
        self.pieces: list[str] = []
        self.logprobs: list[str] = []
        self.head = _head(f"response.{event}.delta", self.id, place, ',"content_index":0')

    def part(self, text: str) -> Fields:
        kind = _KINDS[self.kind][2]
        return {"type": kind, "text": text, **({"annotations": []} if kind == "output_text" else {})}


class _Call:
    """A call that is being said, of a function or of a custom tool."""

    __slots__ = (
        "_pieces",
        "_read",
        "call_id",
        "custom",
        "ended",
        "event",
        "field",
        "head",
        "id",
        "name",
        "namespace",
        "place",
    )

    def __init__(self, toolbox: Toolbox, delta: ToolCallDelta, place: int) -> None:
        called = toolbox.called(delta.name or "")
        self.place = place
        self.name = called.name if called is not None else delta.name or ""
        self.namespace = called.namespace if called is not None else None
        self.custom = called is not None and called.custom
        self.field = "input" if self.custom else "arguments"
        self.event = "custom_tool_call_input" if self.custom else "function_call_arguments"
        self.id = _new_id("ctc" if self.custom else "fc")
        self.call_id = delta.id or _new_id("call")
        self.ended = False
        self.head = _head(f"response.{self.event}.delta", self.id, place)
        self._pieces: list[str] = []
        self._read = CustomInput() if self.custom else None

    @property
    def said(self) -> str:
        return self._read.text if self._read is not None else "".join(self._pieces)

    @property
    def is_whole(self) -> bool:
        try:
            json.loads("".join(self._pieces))
        except (ValueError, RecursionError):
            return False
        return True

    def feed(self, arguments: str) -> str:
        """What its next event says."""
        self._pieces.append(arguments)
        return self._read.feed(arguments) if self._read is not None else arguments

    def end(self) -> str:
        """What is still to be said."""
        self.ended = True
        return self._read.end() if self._read is not None else ""

    def item(self, status: str) -> Fields:
        fields: Fields = {"type": "custom_tool_call" if self.custom else "function_call", "id": self.id}
        fields |= {"call_id": self.call_id, "name": self.name}
        if self.namespace is not None:
            fields["namespace"] = self.namespace
        return {**fields, self.field: self.said, "status": status}


def _head(name: str, item_id: str, place: int, more: str = "") -> str:
    return (
        f'event: {name}\ndata: {{"type":"{name}","item_id":"{item_id}","output_index":{place}{more},"sequence_number":'
    )


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"


def _listed(written: Iterable[str]) -> str:
    return ",".join(filter(None, written))


def _with_logprobs(data: str, logprobs: str | None, end: str) -> str:
    """JSON that ends in an output text, with its log probabilities."""
    return data if logprobs is None else f'{data.removesuffix(end)},"logprobs":[{logprobs}]{end}'

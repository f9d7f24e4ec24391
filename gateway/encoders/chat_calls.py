"""Tool calls as the chat API gives them: of functions, and of custom tools with their input as a text."""

from collections.abc import Collection
from dataclasses import dataclass, field

from engine.base import ToolCallDelta
from gateway.encoders.custom_input import CustomInput, custom_input
from gateway.schemas import openai as answers

CallDelta = answers.ToolCallDelta | answers.CustomToolCallDelta


@dataclass(slots=True)
class Call:
    """One call of a document, put together from its deltas."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def add(self, delta: ToolCallDelta) -> None:
        self.id = delta.id or self.id
        self.name = delta.name or self.name
        self.arguments.append(delta.arguments)

    def fields(self, customs: Collection[str]) -> answers.ToolCalled | answers.CustomToolCalled:
        """`customs` are the names of the custom tools."""
        arguments = "".join(self.arguments)
        if self.name in customs:
            return {"id": self.id, "type": "custom", "custom": {"name": self.name, "input": custom_input(arguments)}}
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


class StreamedCalls:
    """The calls of a stream, over all of its choices."""

    def __init__(self, customs: Collection[str]) -> None:
        self._customs = customs
        self._inputs: dict[tuple[int, int], CustomInput] = {}  # by choice and call

    def deltas(self, choice: int, calls: Collection[ToolCallDelta]) -> list[CallDelta]:
        """What a delta's `tool_calls` become."""
        if not self._customs:
            return [_function(call) for call in calls]
        return [fields for call in calls if (fields := self._either(choice, call)) is not None]

    def _either(self, choice: int, call: ToolCallDelta) -> CallDelta | None:
        place = (choice, call.index)
        if call.name in self._customs:
            self._inputs[place] = CustomInput()
        read = self._inputs.get(place)
        if read is None:
            return _function(call)
        piece = read.feed(call.arguments)
        if call.name is not None:
            custom: answers.CustomDelta = {"name": call.name, "input": piece}
            return {"index": call.index, "id": call.id or "", "type": "custom", "custom": custom}
        return {"index": call.index, "custom": {"input": piece}} if piece else None

    def rest(self, choice: int) -> list[CallDelta]:
        """What the end of a choice still tells of its calls."""
        ended = [(index, read.end()) for (own, index), read in self._inputs.items() if own == choice]
        return [{"index": index, "custom": {"input": piece}} for index, piece in ended if piece]


def _function(call: ToolCallDelta) -> answers.ToolCallDelta:
    if call.name is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function: answers.FunctionDelta = {"arguments": call.arguments, "name": call.name}
    return {"index": call.index, "function": function, "id": call.id or "", "type": "function"}

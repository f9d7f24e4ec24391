"""The items of a Responses request as the messages of a conversation, in OpenAI's chat format.

One turn of a model is several items: its reasoning, its text, its calls. They become one message as long as each adds
what the message doesn't have yet.
"""

from collections.abc import Sequence

from engine.base import JSONValue
from gateway.protocol.response_items import (
    CustomCallItem,
    FunctionCallItem,
    Item,
    MessageItem,
    ReasoningItem,
    ResultItem,
)
from gateway.protocol.tools import Toolbox, custom_arguments

Message = dict[str, JSONValue]


def messages_of(instructions: str | None, given: str | Sequence[Item], toolbox: Toolbox) -> list[Message]:
    """`toolbox` knows by which names the model was told of the tools that it called."""
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for item in given:
        match item:
            case MessageItem(role="assistant"):
                _said(messages, "content", item.text)
            case MessageItem():
                messages.append({"role": item.role, "content": item.text})
            case ReasoningItem() if text := item.text:
                _said(messages, "reasoning", text)
            case FunctionCallItem():
                _called(messages, item.call_id, toolbox.told(item.namespace, item.name), item.arguments)
            case CustomCallItem():
                arguments = custom_arguments(item.input)
                _called(messages, item.call_id, toolbox.told(item.namespace, item.name), arguments)
            case ResultItem():
                messages.append({"role": "tool", "content": item.text, "tool_call_id": item.call_id})
            case _:
                pass  # more tools, what another server's tools did, reasoning that can't be read
    return messages


def _turn(messages: list[Message]) -> Message | None:
    return messages[-1] if messages and messages[-1]["role"] == "assistant" else None


def _said(messages: list[Message], field: str, text: str) -> None:
    turn = _turn(messages)
    if turn is not None and field not in turn:
        turn[field] = text
    else:
        messages.append({"role": "assistant", field: text})


def _called(messages: list[Message], call_id: str, name: str, arguments: str) -> None:
    call: Message = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    turn = _turn(messages)
    if turn is None:
        messages.append({"role": "assistant", "tool_calls": [call]})
        return
    calls = turn.setdefault("tool_calls", [])
    assert isinstance(calls, list)
    calls.append(call)

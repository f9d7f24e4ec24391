"""A Messages request as a conversation in OpenAI's format, which chat templates are written for.

One turn of a user may hold the results of calls, which are messages of their own there, before what the user says; one
of the assistant's holds its thinking, its text and its calls, which are one message.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from engine.base import JSONValue
from gateway.protocol.anthropic_tools import (
    SEARCH,
    ClientTool,
    DefinedTool,
    NamedTool,
    ServerTool,
    ToolChange,
    ToolPolicy,
)
from gateway.protocol.anthropic_turns import (
    AssistantTurn,
    SystemTurn,
    TextBlock,
    ThinkingBlock,
    ToolReference,
    ToolResultBlock,
    ToolUseBlock,
    UserTurn,
)

Message = dict[str, JSONValue]
Turn = UserTurn | AssistantTurn | SystemTurn

# Claude Code's first block of `system`: it differs in every request, and no prefix would ever be shared.
UNSAID = "x-anthropic-billing-header"


def messages_of(system: str | Sequence[TextBlock] | None, turns: Sequence[Turn]) -> list[Message]:
    """What the chat template gets. A turn that says nothing is passed over, unless it is the assistant's."""
    said = system if isinstance(system, str) else _plain(system or ())
    messages: list[Message] = [{"role": "system", "content": said}] if said else []
    for turn in turns:
        match turn:
            case UserTurn():
                messages += _asked(turn)
            case AssistantTurn():
                messages.append(_answered(turn))
            case SystemTurn() if said := _plain(turn.content):
                messages.append({"role": "system", "content": said})
            case _:
                pass
    return messages


def _plain(content: str | Sequence[object]) -> str:
    """What a system prompt says."""
    texts = [content] if isinstance(content, str) else [block.text for block in content if isinstance(block, TextBlock)]
    return "".join(text for text in texts if not text.startswith(UNSAID))


def _asked(turn: UserTurn) -> Iterator[Message]:
    if isinstance(turn.content, str):
        yield {"role": "user", "content": turn.content}
        return
    for block in turn.content:
        if isinstance(block, ToolResultBlock):
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _result(block)}
    texts = _texts(turn.content)
    if texts:
        yield {"role": "user", "content": texts}


def _result(block: ToolResultBlock) -> str:
    if block.content is None or isinstance(block.content, str):
        return block.content or ""
    said = [part.text for part in block.content if isinstance(part, TextBlock)]
    found = [part.tool_name for part in block.content if isinstance(part, ToolReference)]
    return "\n".join([*said, *([f"Loaded tools: {', '.join(found)}"] if found else ())])


def _answered(turn: AssistantTurn) -> Message:
    if isinstance(turn.content, str):
        return {"role": "assistant", "content": turn.content}
    message: Message = {"role": "assistant"}
    thinking = [block.thinking for block in turn.content if isinstance(block, ThinkingBlock)]
    calls = [_call(block) for block in turn.content if isinstance(block, ToolUseBlock)]
    texts = _texts(turn.content)
    if thinking:
        message["reasoning"] = "".join(thinking)
    if calls:
        message["tool_calls"] = calls
    if texts or not (thinking or calls):
        message["content"] = texts
    return message


def _texts(blocks: Sequence[object]) -> str | list[JSONValue]:
    """One text as it is, several as parts: how they are joined is for the template's format to say."""
    texts = [block.text for block in blocks if isinstance(block, TextBlock) and block.text]
    if len(texts) < 2:
        return "".join(texts)
    return [{"type": "text", "text": text} for text in texts]


def _call(block: ToolUseBlock) -> JSONValue:
    function: JSONValue = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
    return {"id": block.id, "type": "function", "function": function}


def offered(tools: Sequence[ClientTool | ServerTool], turns: Sequence[Turn]) -> list[ClientTool]:
    """The tools that the model is told of: those at hand at the end of the conversation.

    Deferred ones are at hand once a client's search has found them, or a system message has added them; where
    Anthropic's server would search, nobody does here, and so all are.
    """
    known = {tool.name: tool for tool in tools if isinstance(tool, ClientTool)}
    searched = any(isinstance(tool, ServerTool) and tool.type.startswith(SEARCH) for tool in tools)
    at_hand = {name: searched or not tool.defer_loading for name, tool in known.items()}
    for turn in turns:
        if isinstance(turn, AssistantTurn) or isinstance(turn.content, str):
            continue
        for block in turn.content:
            if isinstance(block, ToolResultBlock):
                at_hand.update((name, True) for name in _found_by(block))
            elif isinstance(block, ToolChange):
                _change(block, known, at_hand)
    return [tool for name, tool in known.items() if at_hand[name]]


def _found_by(block: ToolResultBlock) -> Iterator[str]:
    if block.content and not isinstance(block.content, str):
        yield from (part.tool_name for part in block.content if isinstance(part, ToolReference))


def _change(change: ToolChange, known: dict[str, ClientTool], at_hand: dict[str, bool]) -> None:
    added = change.type == "tool_addition"
    match change.tool:
        case NamedTool(name=name):
            at_hand[name] = added
        case DefinedTool(definition=ClientTool() as tool) if added:
            known[tool.name], at_hand[tool.name] = tool, True
        case _:
            pass


def spoken(tool: ClientTool) -> dict[str, Any]:
    """A tool as the chat template gets it."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = {"type": "object", **tool.input_schema}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def choice_of(policy: ToolPolicy | None, tools: Sequence[ClientTool]) -> str | dict[str, JSONValue]:
    if not tools or (policy is not None and policy.type == "none"):
        return "none"
    if policy is None or policy.type == "auto":
        return "auto"
    return "required" if policy.type == "any" else {"type": "function", "function": {"name": policy.name}}


def left_out(tools: Sequence[ClientTool | ServerTool], turns: Sequence[Turn]) -> list[str]:
    """The tools that the answer does without, for its client."""
    names = [f"tools[{index}] ({tool.type})" for index, tool in enumerate(tools) if isinstance(tool, ServerTool)]
    for index, turn in enumerate(turns):
        if isinstance(turn, SystemTurn) and not isinstance(turn.content, str):
            changes = (block.tool for block in turn.content if isinstance(block, ToolChange))
            if any(not isinstance(tool, NamedTool) and _unusable(tool) for tool in changes):
                names.append(f"messages[{index}]")
    return names


def _unusable(tool: object) -> bool:
    return not (isinstance(tool, DefinedTool) and isinstance(tool.definition, ClientTool))

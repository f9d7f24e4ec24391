"""Deltas of a scripted engine that its reader was too slow for."""

from engine.base import Delta, ToolCallDelta


def joined(whole: Delta, more: Delta) -> Delta:
    """Two deltas of one choice as one; the pieces of a tool call become one piece."""
    calls = {call.index: call for call in whole.tool_calls}
    for call in more.tool_calls:
        held = calls.get(call.index)
        if held is not None:
            call = ToolCallDelta(call.index, held.id, held.name, held.arguments + call.arguments)
        calls[call.index] = call
    more.tool_calls = tuple(calls.values())
    more.text = whole.text + more.text
    more.reasoning = (whole.reasoning or "") + (more.reasoning or "") or None
    more.prompt_logprobs = whole.prompt_logprobs
    if whole.logprobs or more.logprobs:
        more.logprobs = [*(whole.logprobs or ()), *(more.logprobs or ())]
    return more

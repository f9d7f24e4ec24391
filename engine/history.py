"""The messages of a conversation as vLLM gets them: copies that it may change, their earlier calls parsed.

What a model said before comes back in the shape that it had here or at any other server, and it must not cost the next
turn: a call whose arguments are no JSON counts as one without arguments (that is vLLM's rule), half of a surrogate pair
becomes U+FFFD. Only what can't be read at all is refused.
"""

import json
from collections.abc import Mapping, Sequence

from pydantic_core import from_json

from engine.base import JSONValue
from engine.errors import PromptError
from engine.json_text import whole_characters

NESTING_MAX = 200  # pydantic's, and with it that of every request's body

Message = Mapping[str, JSONValue]


def own_messages(messages: Sequence[Message], param: str) -> list[dict[str, JSONValue]]:
    """Raises PromptError about `param`, the field that they came in."""
    return [_own(message, f"{param}[{index}]", param) for index, message in enumerate(messages)]


def _own(message: Message, place: str, param: str) -> dict[str, JSONValue]:
    copied = dict(message)
    if "reasoning_content" in copied:
        copied.setdefault("reasoning", copied.pop("reasoning_content"))
    calls = copied.get("tool_calls")
    if isinstance(calls, Sequence) and not isinstance(calls, str):
        copied["tool_calls"] = [
            _copied_call(call, f"{place}.tool_calls[{index}].function.arguments" if param == "messages" else param)
            for index, call in enumerate(calls)
        ]
    return copied


def _copied_call(call: JSONValue, place: str) -> JSONValue:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping):
        return call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _parsed(arguments, place)
    return {**call, "function": {**function, "arguments": arguments}}


def _parsed(arguments: str, place: str) -> JSONValue:
    """The object, or the text where it is none: vLLM then takes it for a call without arguments."""
    try:
        found: JSONValue = from_json(whole_characters(arguments))
    except ValueError as error:
        if "recursion" in str(error):
            raise PromptError(
                f"The arguments of a call in `{place}` are nested deeper than the {NESTING_MAX} allowed levels.",
                place,
            ) from None
        found = _without_halves(arguments)
    return found if isinstance(found, Mapping) else arguments


def _without_halves(arguments: str) -> JSONValue:
    """JSON that Python reads and pydantic doesn't: with halves of surrogate pairs."""
    try:
        found: JSONValue = json.loads(whole_characters(json.dumps(json.loads(arguments), ensure_ascii=False)))
    except (ValueError, RecursionError):
        return None
    return found


def calls_apart(messages: Sequence[Message]) -> list[Message] | None:
    """The same conversation with one call in a message, each followed by its results; None where it is so already.

    For templates with Meta's rule ("This model only supports single tool-calls at once!"): models call several
    functions all the same, and their answers come back.
    """
    if not any(len(_calls(message)) > 1 for message in messages):
        return None
    laid_out: list[Message] = []
    at = 0
    while at < len(messages):
        message, calls = messages[at], _calls(messages[at])
        at += 1
        if len(calls) < 2:
            laid_out.append(message)
            continue
        results = []
        while at < len(messages) and messages[at].get("role") == "tool":
            results.append(messages[at])
            at += 1
        laid_out += _one_by_one(message, calls, results)
    return laid_out


def _one_by_one(message: Message, calls: Sequence[JSONValue], results: list[Message]) -> list[Message]:
    laid_out: list[Message] = []
    named = any(result.get("tool_call_id") is not None for result in results)
    for index, call in enumerate(calls):
        said = message if index == 0 else {"role": message["role"], "content": None}
        laid_out.append({**said, "tool_calls": [call]})
        call_id = call.get("id") if isinstance(call, Mapping) else None
        its_own = [result for result in results if result.get("tool_call_id") == call_id] if named else results[:1]
        results = [result for result in results if all(result is not one for one in its_own)]
        laid_out += its_own
    return [*laid_out, *results]


def _calls(message: Message) -> Sequence[JSONValue]:
    calls = message.get("tool_calls")
    return calls if isinstance(calls, Sequence) and not isinstance(calls, str) else ()

"""What a prompt is made from: a conversation, and the format of the model card that renders it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

JSONValue = str | int | float | bool | None | Sequence["JSONValue"] | Mapping[str, "JSONValue"]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How one model card turns conversations into prompts and tokens back into messages.

    The parser names are vLLM's (`vllm.parser.ParserManager`); `None` means that the model has no such output.
    `chat_template` is Jinja text; `None` takes the one that comes with the weights. With `hold_forced_calls`, a call
    that the request forces keeps to the function's schema, `strict` or not.
    """

    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template: str | None = None
    hold_forced_calls: bool = True


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """A constraint on the output: any JSON object, JSON of a schema, or a regular expression.

    `place` is where the schema or the expression stands in the request.
    """

    kind: Literal["json_object", "json_schema", "regex"]
    json_schema: Mapping[str, JSONValue] | None = None
    regex: str | None = None
    place: str = "response_format"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A chat request as far as the prompt and the parsing of the answer depend on it.

    `messages`, `tools` and `tool_choice` are in OpenAI's format, already validated. With `continue_final` the last
    message is the beginning of the answer, and the model goes on from it. `param` is the request's field that the
    messages came in, `schema_field` where in a tool its schema stands; `schema_places`, if any, say the whole of it for
    each tool. Calls of the functions in `held` keep to their schemas as far as that can be, `strict` or not.
    `thinking_tokens_max` is how many tokens the model may think; an engine that can't end a model's thinking names it
    in `Prompt.left_out`. Without `opens_answer` the prompt ends with the last message.
    """

    messages: Sequence[Mapping[str, JSONValue]]
    tools: Sequence[Mapping[str, JSONValue]] = ()
    tool_choice: str | Mapping[str, JSONValue] = "none"
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: Mapping[str, JSONValue] = field(default_factory=dict)
    continue_final: bool = False
    param: str = "messages"
    schema_field: str = "function.parameters"
    thinking_tokens_max: int | None = None
    schema_places: Sequence[str] = ()
    held: Collection[str] = ()
    opens_answer: bool = True

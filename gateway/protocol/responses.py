"""`POST /v1/responses`: the request, as OpenAI's Responses API has it, without what needs a server that remembers.

https://platform.openai.com/docs/api-reference/responses/create. The ranges of the numbers come from the model's
parameter profile, as on the chat route.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, FailFast, Field, JsonValue, model_validator

from engine.base import Sampling
from gateway.protocol.checks import (
    Body,
    JSONObject,
    Unsupported,
    conflict,
    openai_unsupported,
    refused_fields,
)
from gateway.protocol.messages import TOOLS_MAX
from gateway.protocol.response_items import ITEM_TYPES, Items, MessageItem, item_type
from gateway.protocol.schema import SENT, JSONSchema, implies

LOGPROBS = "message.output_text.logprobs"
FORGETS = "this gateway keeps no answers; send the whole conversation as `input`"
REFUSED = {
    "previous_response_id": FORGETS,
    "conversation": FORGETS,
    "prompt": "this gateway keeps no prompt templates",
    "context_management": "this gateway doesn't edit what it is sent",
    "max_tool_calls": "it counts built-in tools, and this gateway runs none",
    "moderation": "this gateway doesn't moderate",
}
NO_TOOLS = "this gateway runs no tools and calls no MCP servers itself; a `function` is run by the client"


METADATA_MAX = 16  # OpenAI's bound


def _few(value: object) -> object:
    """Before pydantic looks at the values: a million wrong ones would make a million errors."""
    if isinstance(value, dict) and len(value) > METADATA_MAX:
        raise ValueError(f"it may hold at most {METADATA_MAX} pairs.")
    return value


Metadata = Annotated[dict[str, str], Field(max_length=METADATA_MAX), BeforeValidator(_few)]


class TextFormat(Body):
    """`name`, `description` and `strict` change nothing: a schema is always kept to."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    json_schema: dict[str, JsonValue] | None = Field(None, alias="schema")
    strict: bool | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (implies({"type": {"const": "json_schema"}}, {"schema": SENT}),)

    @model_validator(mode="after")
    def _complete(self) -> "TextFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("the type json_schema needs `schema`.")
        return self


class TextConfig(Body):
    format: TextFormat | None = None


class ReasoningConfig(Body):
    effort: Literal["none", "minimal", "low", "medium", "high"] | None = None


class ResponseTool(Body):
    """A function that the client runs."""

    type: Literal["function"]
    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class NamedResponseTool(Body):
    type: Literal["function"]
    name: str


class ResponseStreamOptions(Body):
    include_obfuscation: bool | None = None


class ResponsesBody(Body):
    PROMPT: ClassVar[frozenset[str]] = frozenset({"input"})

    model: str
    input: Items
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    stream: bool = False
    stream_options: ResponseStreamOptions | None = None
    tools: Annotated[list[ResponseTool], FailFast(), Field(max_length=TOOLS_MAX)] = Field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | NamedResponseTool | None = None
    parallel_tool_calls: bool = True
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    include: Annotated[list[Literal["message.output_text.logprobs"]], FailFast(), Field(max_length=16)] = Field(
        default_factory=list
    )
    top_logprobs: int | None = None
    user: str | None = None
    # Accepted because they don't change the answer.
    background: Literal[False] | None = None
    store: Literal[False] | None = None
    truncation: Literal["disabled"] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        implies({"stream_options": SENT}, {"stream": {"const": True}}),
        implies(
            {"top_logprobs": {"type": "integer", "minimum": 1}},
            {"include": {"type": "array", "contains": {"const": LOGPROBS}}},
        ),
        implies(
            {"tool_choice": {"anyOf": [{"const": "required"}, {"type": "object"}]}},
            {"tools": {"type": "array", "minItems": 1}},
        ),
    )

    @classmethod
    def unsupported(cls, values: JSONObject) -> Iterator[Unsupported]:
        yield from openai_unsupported(values)
        yield from refused_fields(values, REFUSED)
        if values.get("background") is True:
            yield "background", "this gateway keeps no answers to be asked for later", True
        if values.get("truncation") == "auto":
            yield "truncation", "this gateway doesn't shorten a conversation", "auto"
        yield from _refused_within(values)

    @model_validator(mode="after")
    def _consistent(self) -> "ResponsesBody":
        if self.stream_options is not None and not self.stream:
            raise conflict("stream_options", "`stream_options` needs `stream: true`.")
        if self.top_logprobs and LOGPROBS not in self.include:
            raise conflict("top_logprobs", f'`top_logprobs` needs `include: ["{LOGPROBS}"]`.')
        if self.tool_choice is not None and self.tool_choice not in ("none", "auto") and not self.tools:
            raise conflict("tool_choice", "`tool_choice` asks for a function, and `tools` holds none.")
        named = self.tool_choice.name if isinstance(self.tool_choice, NamedResponseTool) else None
        if named is not None and named not in [tool.name for tool in self.tools]:
            raise conflict("tool_choice", "`tool_choice` names a function that isn't in `tools`.")
        return self

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in self.include

    def conversation_fields(self) -> dict[str, Any]:
        """For `engine.responses_format`."""
        names = {"model", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning"}
        fields = self.model_dump(exclude_none=True, by_alias=True, include=names)
        return {
            **fields,
            "input": self.input if isinstance(self.input, str) else [item.fields() for item in self.input],
        }

    @property
    def continues(self) -> bool:
        """Whether the input ends with the beginning of the answer."""
        last = None if isinstance(self.input, str) else self.input[-1]
        return isinstance(last, MessageItem) and last.begun

    def prompt(self) -> tuple[dict[str, Any], bool]:
        """`conversation_fields` and `continues`."""
        return self.conversation_fields(), self.continues

    def sampling(self, max_tokens: int) -> Sampling:
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            logprobs=(self.top_logprobs or 0) if self.wants_logprobs else None,
        )


def _refused_within(values: JSONObject) -> Iterator[Unsupported]:
    """What can't be honoured in the fields of fields."""
    for index, item in enumerate(_list(values, "input")):
        if isinstance(item, dict) and isinstance(kind := item_type(item), str) and kind not in ITEM_TYPES:
            yield f"input[{index}]", f"an item's type is one of {', '.join(ITEM_TYPES)}", kind
    for index, tool in enumerate(_list(values, "tools")):
        if isinstance(tool, dict) and isinstance(kind := tool.get("type"), str) and kind != "function":
            yield f"tools[{index}]", NO_TOOLS, kind
    for index, name in enumerate(_list(values, "include")):
        if isinstance(name, str) and name != LOGPROBS:
            yield f"include[{index}]", f"{LOGPROBS} is all that there is; reasoning comes as text", name
    choice, reasoning, text = (values.get(name) for name in ("tool_choice", "reasoning", "text"))
    if isinstance(choice, dict) and isinstance(kind := choice.get("type"), str) and kind != "function":
        yield "tool_choice", NO_TOOLS, kind
    for name in ("summary", "generate_summary"):
        if isinstance(reasoning, dict) and reasoning.get(name) is not None:
            yield f"reasoning.{name}", "reasoning comes whole, not summarized", reasoning[name]
    if isinstance(text, dict) and text.get("verbosity") is not None:
        yield "text.verbosity", "this model has no such setting", text["verbosity"]


def _list(values: JSONObject, name: str) -> list[object]:
    found = values.get(name)
    return found if isinstance(found, list) else []

"""`POST /v1/responses`: the request, as OpenAI's Responses API has it, without what needs a server that remembers.

https://platform.openai.com/docs/api-reference/responses/create. The ranges of the numbers come from the model's
parameter profile, as on the chat route.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, FailFast, Field, JsonValue, model_validator

from engine.base import Sampling
from gateway.models.parameters import Route
from gateway.models.tiers import ServiceTier
from gateway.protocol.body import Body, JSONObject, RequestBody, conflict
from gateway.protocol.chat import EFFORTS, LogitBias, ReasoningEffort, openai_unsupported
from gateway.protocol.fields import RESPONSES, FieldTable, Unsupported
from gateway.protocol.messages import TOOLS_MAX
from gateway.protocol.response_items import ITEM_TYPES, Items, MessageItem, item_type
from gateway.protocol.schema import ASKED, SENT, JSONSchema, implies

LOGPROBS = "message.output_text.logprobs"
NO_TOOLS = "this gateway runs no tools and calls no MCP servers itself; a `function` is run by the client"


METADATA_MAX = 16  # OpenAI's bounds


def _few(value: object) -> object:
    """Before pydantic looks at the values: a million wrong ones would make a million errors."""
    if isinstance(value, dict) and len(value) > METADATA_MAX:
        raise ValueError(f"it may hold at most {METADATA_MAX} pairs.")
    return value


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=METADATA_MAX),
    BeforeValidator(_few),
]


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
    """What else may stand here, such as `summary`, changes nothing: reasoning comes whole."""

    effort: ReasoningEffort | None = None


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


class ResponsesBody(RequestBody):
    ROUTE: ClassVar[Route] = "responses"
    FIELDS: ClassVar[FieldTable] = RESPONSES
    PROMPT: ClassVar[frozenset[str]] = frozenset({"input"})
    EMPTIES: ClassVar[frozenset[str]] = frozenset(
        {"tools", "tool_choice", "text", "reasoning", "include", "stream_options", "logit_bias"}
    )

    model: str
    input: Items
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool = False
    stream_options: ResponseStreamOptions | None = None
    tools: Annotated[list[ResponseTool], FailFast(), Field(max_length=TOOLS_MAX)] = Field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | NamedResponseTool | None = None
    parallel_tool_calls: bool = True
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    include: Annotated[list[str], FailFast(), Field(max_length=16)] = Field(default_factory=list)
    top_logprobs: int | None = None
    logit_bias: LogitBias = Field(default_factory=dict)
    metadata: Metadata | None = None
    user: str | None = None
    background: Literal[False] | None = None
    store: Literal[False] | None = None
    truncation: Literal["disabled", "auto"] | None = None
    service_tier: ServiceTier | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        implies({"stream_options": ASKED}, {"stream": {"const": True}}),
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
        if values.get("background") is True:
            yield "background", "this gateway keeps no answers to be asked for later", True
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

    def alternatives(self) -> int:
        return self.top_logprobs or 0

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in self.include

    def conversation_fields(self) -> dict[str, Any]:
        """For `engine.responses_format`."""
        names = {"model", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning"}
        fields = self.model_dump(exclude_none=True, by_alias=True, include=names)
        if self.reasoning is not None and self.reasoning.effort in EFFORTS:
            fields["reasoning"] = {"effort": EFFORTS[self.reasoning.effort]}
        return {
            **fields,
            "input": self.input if isinstance(self.input, str) else [item.fields() for item in self.input],
        }

    @property
    def continues(self) -> bool:
        """Whether the input ends with the beginning of the answer."""
        last = None if isinstance(self.input, str) else self.input[-1]
        return isinstance(last, MessageItem) and last.begun

    def make_prompt_source(self) -> tuple[dict[str, Any], bool]:
        """`conversation_fields` and `continues`."""
        return self.conversation_fields(), self.continues

    def sampling(self, max_tokens: int, **more: object) -> Sampling:
        biases = {int(token): bias for token, bias in self.logit_bias.items()}
        logprobs = (self.top_logprobs or 0) if self.wants_logprobs else None
        return super().sampling(max_tokens, logprobs=logprobs, logit_bias=biases, **more)


def _refused_within(values: JSONObject) -> Iterator[Unsupported]:
    """What can't be honoured in the fields of fields."""
    for index, item in enumerate(_list(values, "input")):
        if isinstance(item, dict) and isinstance(kind := item_type(item), str) and kind not in ITEM_TYPES:
            yield f"input[{index}]", f"an item's type is one of {', '.join(ITEM_TYPES)}", kind
    for index, tool in enumerate(_list(values, "tools")):
        if isinstance(tool, dict) and isinstance(kind := tool.get("type"), str) and kind != "function":
            yield f"tools[{index}]", NO_TOOLS, kind
    choice = values.get("tool_choice")
    if isinstance(choice, dict) and isinstance(kind := choice.get("type"), str) and kind != "function":
        yield "tool_choice", NO_TOOLS, kind


def _list(values: JSONObject, name: str) -> list[object]:
    found = values.get(name)
    return found if isinstance(found, list) else []

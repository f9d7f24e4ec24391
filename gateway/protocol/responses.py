"""`POST /v1/responses`: the request, as OpenAI's Responses API has it, without what needs a server that remembers.

https://platform.openai.com/docs/api-reference/responses/create. The ranges of the numbers come from the model's
parameter profile, as on the chat route.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, FailFast, Field, JsonValue, model_validator

from engine.base import Conversation, ResponseFormat, Sampling
from gateway.models.parameters import Route
from gateway.models.tiers import ServiceTier
from gateway.protocol.body import Body, JSONObject, RequestBody, conflict
from gateway.protocol.chat import EFFORTS, LogitBias, ReasoningEffort, openai_unsupported
from gateway.protocol.fields import RESPONSES, FieldTable, Unsupported
from gateway.protocol.response_conversation import messages_of
from gateway.protocol.response_items import (
    HOSTED_ITEMS,
    ITEM_TYPES,
    AdditionalTools,
    HostedItem,
    Items,
    MessageItem,
    item_type,
)
from gateway.protocol.response_tools import NamespaceTool, Tool, ToolChoice, Tools, choose, put
from gateway.protocol.schema import ASKED, SENT, JSONSchema, implies
from gateway.protocol.tools import (
    NOT_RUN,
    SOME_TOOL,
    TOOLS_MAX,
    HostedTool,
    Toolbox,
    hosted_choice,
)

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED_REASONING = "reasoning.encrypted_content"

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


MORE_TOOLS: JSONSchema = {
    "properties": {
        "input": {
            "type": "array",
            "contains": {"properties": {"type": {"const": "additional_tools"}}, "required": ["type"]},
        }
    }
}


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

    def constraint(self) -> ResponseFormat | None:
        form = self.format
        if form is None or form.type == "text":
            return None
        if form.type == "json_object":
            return ResponseFormat("json_object", place="text.format")
        return ResponseFormat("json_schema", json_schema=form.json_schema, place="text.format.schema")


class ReasoningConfig(Body):
    """What else may stand here, such as `summary`, changes nothing: reasoning comes whole."""

    effort: ReasoningEffort | None = None


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
    tools: Tools = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
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
        {
            **implies({"tool_choice": {"anyOf": [{"const": "required"}, {"type": "object", "minProperties": 1}]}}, {}),
            "then": {"anyOf": [{"properties": {"tools": SOME_TOOL}, "required": ["tools"]}, MORE_TOOLS]},
        },
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
        if sum(len(tool.tools) if isinstance(tool, NamespaceTool) else 1 for tool in self._all_tools()) > TOOLS_MAX:
            raise conflict("tools", f"`tools` may hold at most {TOOLS_MAX} tools, those of namespaces as well.")
        if self.tool_choice not in (None, "none", "auto"):
            toolbox = self._toolbox()
            if not toolbox.offered:
                raise conflict("tool_choice", "`tool_choice` asks for a function, and `tools` holds none.")
            choose(toolbox, self.tool_choice)
        return self

    def alternatives(self) -> int:
        return self.top_logprobs or 0

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in self.include

    @property
    def wants_encrypted_reasoning(self) -> bool:
        return ENCRYPTED_REASONING in self.include

    @property
    def continues(self) -> bool:
        """Whether the input ends with the beginning of the answer."""
        last = None if isinstance(self.input, str) else self.input[-1]
        return isinstance(last, MessageItem) and last.begun

    def _all_tools(self) -> Iterator[Tool]:
        yield from self.tools
        for item in () if isinstance(self.input, str) else self.input:
            if isinstance(item, AdditionalTools):
                yield from item.tools

    def _toolbox(self) -> Toolbox:
        toolbox = Toolbox()
        put(toolbox, self.tools, "tools")
        for index, item in enumerate(() if isinstance(self.input, str) else self.input):
            if isinstance(item, AdditionalTools):
                put(toolbox, item.tools, f"input[{index}].tools")
            elif isinstance(item, HostedItem):
                toolbox.left_out.append(f"input[{index}] ({item.type})")
        return toolbox

    def repeated(self) -> dict[str, object]:
        """What of the request an answer repeats as it was sent, but for what was left out."""
        choice = self.tool_choice or ("auto" if self.tools else "none")
        given = self.text.model_dump(by_alias=True, exclude_none=True) if self.text is not None else {}
        return {
            "tools": [tool.model_dump() for tool in self.tools if not isinstance(tool, HostedTool)],
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(exclude_none=True),
            "text": {"format": {"type": "text"}} | given,
        }

    def make_prompt_source(self) -> tuple[Conversation, Toolbox]:
        toolbox = self._toolbox()
        told, choice = choose(toolbox, self.tool_choice)
        effort = self.reasoning.effort if self.reasoning is not None else None
        return Conversation(
            messages=messages_of(self.instructions, self.input, toolbox),
            tools=[tool.spoken() for tool in told],
            tool_choice=choice,
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=self.text.constraint() if self.text is not None else None,
            reasoning_effort=EFFORTS.get(effort or "", effort),
            continue_final=self.continues,
            param="input",
            schema_places=[tool.place for tool in told],
            held=frozenset(tool.told for tool in told if tool.held),
        ), toolbox

    def sampling(self, max_tokens: int, **more: object) -> Sampling:
        biases = {int(token): bias for token, bias in self.logit_bias.items()}
        logprobs = (self.top_logprobs or 0) if self.wants_logprobs else None
        return super().sampling(max_tokens, logprobs=logprobs, logit_bias=biases, **more)


_REASONS = {
    "item_reference": "this gateway keeps no answers to refer to; send the item itself (AI SDK: `store: false`)",
    "compaction": "only the server that made it can read it; send the conversation itself",
}


def _refused_within(values: JSONObject) -> Iterator[Unsupported]:
    """What can't be honoured in the fields of fields."""
    for index, item in enumerate(_list(values, "input")):
        kind = item_type(item) if isinstance(item, dict) else None
        if isinstance(kind, str) and kind not in ITEM_TYPES and kind not in HOSTED_ITEMS:
            yield f"input[{index}]", _REASONS.get(kind, f"an item's type is one of {', '.join(ITEM_TYPES)}"), kind
    if kind := hosted_choice(values.get("tool_choice"), _list(values, "tools")):
        yield "tool_choice", NOT_RUN, kind


def _list(values: JSONObject, name: str) -> list[object]:
    found = values.get(name)
    return found if isinstance(found, list) else []

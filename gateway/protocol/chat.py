"""`POST /v1/chat/completions`: the request, as OpenAI's and the pages' fields.

The ranges of the numbers are not here: they come from the model's parameter profile (`checks.with_ranges`).
"""

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema, model_validator

from engine.base import Conversation, ResponseFormat, Sampling
from gateway.errors.suggestions import nearest
from gateway.models.parameters import Route
from gateway.models.tiers import SERVICE_TIERS, ServiceTier
from gateway.protocol.body import Body, JSONObject, RequestBody, conflict
from gateway.protocol.fields import CHAT, EMPTY, FieldTable, Unsupported
from gateway.protocol.messages import Messages, NamedToolChoice, ToolChoice, Tools
from gateway.protocol.schema import ASKED, SENT, JSONSchema, forbids, implies, one_of_fields

BIASES_MAX = 1024
VARIABLES_MAX = 64
VARIABLE_CHARACTERS_MAX = 256


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > BIASES_MAX:
        raise ValueError(f"it may name at most {BIASES_MAX} tokens.")
    return value


def _few_variables(value: object) -> object:
    if isinstance(value, dict):
        if len(value) > VARIABLES_MAX:
            raise ValueError(f"it may name at most {VARIABLES_MAX} variables; it names {len(value)}.")
        if any(len(name) > VARIABLE_CHARACTERS_MAX for name in value):
            raise ValueError(f"a variable's name may have at most {VARIABLE_CHARACTERS_MAX} characters.")
    return value


# vLLM looks each name up in signatures and templates, and keeps names that it has seen.
TemplateVariables = Annotated[
    dict[Annotated[str, Field(max_length=VARIABLE_CHARACTERS_MAX)], JsonValue],
    Field(max_length=VARIABLES_MAX),
    BeforeValidator(_few_variables),
]


TOKEN_ID = "^[0-9]{1,9}$"  # noqa: S105 - a pattern
LogitBias = Annotated[
    dict[Annotated[str, Field(pattern=TOKEN_ID)], Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]],
    BeforeValidator(_few),
    WithJsonSchema(
        {
            "type": "object",
            "patternProperties": {TOKEN_ID: {"type": "number", "minimum": -100, "maximum": 100}},
            "additionalProperties": False,
            "maxProperties": BIASES_MAX,
        }
    ),
]


class StreamOptions(Body):
    include_usage: bool | None = None
    continuous_usage_stats: bool = False
    include_obfuscation: bool | None = None


class JSONSchemaFormat(Body):
    name: str | None = None
    description: str | None = None
    json_schema: dict[str, JsonValue] | None = Field(None, alias="schema")
    strict: bool | None = None


class Format(Body):
    """`{"type": "json_object"}`, or json_schema with its schema, or regex with its pattern."""

    type: Literal["text", "json_object", "json_schema", "regex"]
    json_schema: JSONSchemaFormat | None = None
    regex: str | None = None
    pattern: str | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        implies(
            {"type": {"const": "json_schema"}},
            {"json_schema": {"type": "object", "properties": {"schema": SENT}, "required": ["schema"]}},
        ),
        {
            "if": {"properties": {"type": {"const": "regex"}}},
            "then": one_of_fields({"type": "string", "minLength": 1}, "regex", "pattern"),
        },
    )

    @model_validator(mode="after")
    def _complete(self) -> "Format":
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.json_schema is None):
            raise ValueError("the type json_schema needs `json_schema.schema`.")
        if self.type == "regex" and not (self.regex or self.pattern):
            raise ValueError("the type regex needs `regex`.")
        return self

    def constraint(self) -> ResponseFormat | None:
        match self.type:
            case "text":
                return None
            case "json_object":
                return ResponseFormat("json_object")
            case "json_schema":
                schema = self.json_schema.json_schema if self.json_schema is not None else None
                return ResponseFormat("json_schema", json_schema=schema, place="response_format.json_schema.schema")
            case "regex":
                field = "regex" if self.regex else "pattern"
                return ResponseFormat("regex", regex=self.regex or self.pattern, place=f"response_format.{field}")


Choices = Annotated[list[Annotated[str, Field(min_length=1)]], Field(fail_fast=True, min_length=1, max_length=1024)]


class StructuredOutputs(Body):
    """vLLM's way to ask for a structure: exactly one of these."""

    json_schema: dict[str, JsonValue] | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: str | None = Field(None, min_length=1)
    choice: (
        Annotated[list[Annotated[str, Field(min_length=1)]], Field(fail_fast=True, min_length=1, max_length=1024)]
        | None
    ) = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        {
            "oneOf": [
                {"properties": {name: SENT if name != "json_object" else {"const": True}}, "required": [name]}
                for name in ("json", "json_object", "regex", "choice")
            ]
        },
    )

    @model_validator(mode="after")
    def _one(self) -> "StructuredOutputs":
        asked = (self.json_schema is not None, self.json_object is True, self.regex is not None, bool(self.choice))
        if sum(asked) != 1:
            raise ValueError("it needs exactly one of `json`, `json_object: true`, `regex` and `choice`.")
        return self

    def constraint(self) -> ResponseFormat:
        if self.json_schema is not None:
            return ResponseFormat("json_schema", json_schema=self.json_schema, place="structured_outputs.json")
        if self.choice is not None:
            choices = "|".join(f"({re.escape(one)})" for one in self.choice)
            return ResponseFormat("regex", regex=choices, place="structured_outputs.choice")
        if self.regex is not None:
            return ResponseFormat("regex", regex=self.regex, place="structured_outputs.regex")
        return ResponseFormat("json_object", place="structured_outputs")


ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
# Templates know no more than "high".
EFFORTS = {"xhigh": "high", "max": "high"}
CONSTRAINT: JSONSchema = {
    "type": "object",
    "properties": {"type": {"not": {"const": "text"}}},
    "required": ["type"],
}


class SamplingFields(RequestBody):
    """What the chat and the completion routes share, beside the sampling parameters of the model's profile."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n: int = 1
    logit_bias: LogitBias = Field(default_factory=dict)
    user: str | None = None
    store: Literal[False] | None = None
    service_tier: ServiceTier | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (implies({"stream_options": ASKED}, {"stream": {"const": True}}),)
    EMPTIES: ClassVar[frozenset[str]] = frozenset({"logit_bias", "stream_options"})

    @classmethod
    def unsupported(cls, values: JSONObject) -> Iterator[Unsupported]:
        yield from openai_unsupported(values)

    @property
    def include_usage(self) -> bool | None:
        """None: the usage rides on the chunk with `finish_reason`; true: OpenAI's way; false: not at all."""
        return self.stream_options.include_usage if self.stream_options is not None else None

    @property
    def continuous_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.continuous_usage_stats

    @model_validator(mode="after")
    def _honest(self) -> "SamplingFields":
        if self.stream_options is not None and not self.stream:
            raise conflict("stream_options", "`stream_options` needs `stream: true`.")
        return self

    def sampling(self, max_tokens: int, **more: object) -> Sampling:
        biases = {int(token): bias for token, bias in self.logit_bias.items()}
        return super().sampling(max_tokens, logit_bias=biases, **more)


def openai_unsupported(values: JSONObject) -> Iterator[Unsupported]:
    """What no OpenAI route of this gateway can honour, by the value that was sent."""
    if values.get("store") is True:
        yield "store", "this gateway keeps no answers", True
    if values.get("modalities", ["text"]) not in (["text"], *EMPTY):
        yield "modalities", "this model writes text only", values["modalities"]
    if values.get("service_tier", "auto") not in SERVICE_TIERS:
        yield "service_tier", f"the tiers are {', '.join(SERVICE_TIERS)}", values["service_tier"]


class ChatBody(SamplingFields):
    ROUTE: ClassVar[Route] = "chat"
    FIELDS: ClassVar[FieldTable] = CHAT
    PROMPT: ClassVar[frozenset[str]] = frozenset({"messages"})
    EMPTIES: ClassVar[frozenset[str]] = SamplingFields.EMPTIES | {
        "tools",
        "tool_choice",
        "chat_template_kwargs",
        "response_format",
        "structured_outputs",
        "modalities",
    }

    messages: Messages
    max_completion_tokens: int | None = None
    tools: Tools = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    response_format: Format | None = None
    structured_outputs: StructuredOutputs | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    reasoning_effort: ReasoningEffort | None = None
    include_reasoning: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: TemplateVariables = Field(default_factory=dict)
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True, min_length=1, max_length=1)] | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        implies({"top_logprobs": {"type": "integer", "minimum": 1}}, {"logprobs": {"const": True}}),
        implies(
            {"tool_choice": {"anyOf": [{"const": "required"}, {"type": "object", "minProperties": 1}]}},
            {"tools": {"type": "array", "minItems": 1}},
        ),
        forbids({"response_format": CONSTRAINT}, {"structured_outputs": {"type": "object", "minProperties": 1}}),
    )

    @classmethod
    def unsupported(cls, values: JSONObject) -> Iterator[Unsupported]:
        yield from super().unsupported(values)
        if values.get("function_call", "none") not in ("none", "auto", *EMPTY):
            yield "function_call", "it was replaced by `tool_choice`", values["function_call"]
        if values.get("add_generation_prompt") is False and values.get("continue_final_message") is not True:
            yield "add_generation_prompt", "an answer needs its beginning", False

    @classmethod
    def without_unusable(cls, values: JSONObject) -> tuple[JSONObject, tuple[str, ...]]:
        if not values.get("web_search_options"):
            return values, ()
        return {name: value for name, value in values.items() if name != "web_search_options"}, ("web_search_options",)

    @model_validator(mode="after")
    def _consistent(self) -> "ChatBody":
        if self.top_logprobs and not self.logprobs:
            raise conflict("top_logprobs", "`top_logprobs` needs `logprobs: true`.")
        if self.structured_outputs is not None and self.response_format not in (None, Format(type="text")):
            raise conflict("structured_outputs", "`structured_outputs` and `response_format` exclude each other.")
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise conflict(
                "continue_final_message",
                "`continue_final_message` goes on from an assistant's message, and the last one is the "
                f"{self.messages[-1].role}'s.",
            )
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise conflict("max_tokens", "`max_tokens` and `max_completion_tokens` mean the same and differ; send one.")
        if self.tool_choice is not None and self.tool_choice not in ("none", "auto") and not self.tools:
            raise conflict("tool_choice", "`tool_choice` asks for a function, and `tools` holds none.")
        if isinstance(self.tool_choice, NamedToolChoice):
            names = [tool.function.name for tool in self.tools]
            if self.tool_choice.function.name not in names:
                near = nearest(self.tool_choice.function.name, names)
                hint = f" Did you mean {near}?" if near is not None else ""
                raise conflict("tool_choice", f"`tool_choice` names a function that isn't in `tools`.{hint}")
        return self

    @property
    def tokens_wanted(self) -> int | None:
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    def alternatives(self) -> int:
        return self.n * (self.top_logprobs or 0)

    @property
    def logprobs_wanted(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def make_prompt_source(self) -> Conversation:
        choice = self.tool_choice or ("auto" if self.tools else "none")
        return Conversation(
            messages=[message.model_dump(exclude_none=True) for message in self.messages],
            tools=[tool.model_dump(exclude_none=True) for tool in self.tools],
            tool_choice=choice.model_dump() if isinstance(choice, NamedToolChoice) else choice,
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=self.constraint,
            reasoning_effort=EFFORTS.get(self.reasoning_effort or "", self.reasoning_effort),
            chat_template_kwargs=self.chat_template_kwargs,
            continue_final=self.continue_final_message,
        )

    @property
    def constraint(self) -> ResponseFormat | None:
        asked = self.structured_outputs or self.response_format
        return asked.constraint() if asked is not None else None

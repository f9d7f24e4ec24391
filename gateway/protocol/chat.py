"""`POST /v1/chat/completions`: the request, as OpenAI's and the pages' fields.

The ranges of the numbers are not here: they come from the model's parameter profile (`checks.with_ranges`).
"""

import difflib
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, FailFast, Field, JsonValue, WithJsonSchema, model_validator

from engine.base import Conversation, ResponseFormat, Sampling
from gateway.protocol.checks import Body, conflict
from gateway.protocol.messages import Messages, NamedToolChoice, ToolChoice, Tools
from gateway.protocol.schema import SENT, JSONSchema, implies, one_of_fields, one_or_more

STOP_CHARACTERS_MAX = 4096
BIASES_MAX = 1024


def _stop_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > BIASES_MAX:
        raise ValueError(f"it may name at most {BIASES_MAX} tokens.")
    return value


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


class SamplingFields(Body):
    """What the chat and the completion routes share: the sampling parameters, within the profile's ranges."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    max_tokens: int | None = None
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=STOP_CHARACTERS_MAX)]],
        FailFast(),
        BeforeValidator(_stop_list),
    ] = Field(default_factory=list, json_schema_extra=one_or_more)
    ignore_eos: bool = False
    logit_bias: LogitBias = Field(default_factory=dict)
    user: str | None = None
    # Accepted because they don't change the answer.
    metadata: dict[str, JsonValue] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (implies({"stream_options": SENT}, {"stream": {"const": True}}),)

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

    def sampling(self, max_tokens: int, logprobs: int | None) -> Sampling:
        return Sampling(
            max_tokens=max_tokens,
            n=self.n,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            stop=tuple(self.stop),
            ignore_eos=self.ignore_eos,
            logprobs=logprobs,
            logit_bias={int(key): bias for key, bias in self.logit_bias.items()},
        )


class ChatBody(SamplingFields):
    messages: Messages
    max_completion_tokens: int | None = None
    tools: Tools = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    response_format: Format | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True, min_length=1, max_length=1)] | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        implies({"top_logprobs": SENT}, {"logprobs": {"const": True}}),
        implies(
            {"tool_choice": {"anyOf": [{"const": "required"}, {"type": "object"}]}},
            {"tools": {"type": "array", "minItems": 1}},
        ),
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ChatBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise conflict("top_logprobs", "`top_logprobs` needs `logprobs: true`.")
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise conflict("max_tokens", "`max_tokens` and `max_completion_tokens` mean the same and differ; send one.")
        if self.tool_choice is not None and self.tool_choice not in ("none", "auto") and not self.tools:
            raise conflict("tool_choice", "`tool_choice` asks for a function, and `tools` holds none.")
        if isinstance(self.tool_choice, NamedToolChoice):
            names = [tool.function.name for tool in self.tools]
            if self.tool_choice.function.name not in names:
                near = difflib.get_close_matches(self.tool_choice.function.name[:256], names, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise conflict("tool_choice", f"`tool_choice` names a function that isn't in `tools`.{hint}")
        return self

    @property
    def tokens_wanted(self) -> int | None:
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    @property
    def logprobs_wanted(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def conversation(self) -> Conversation:
        choice = self.tool_choice or ("auto" if self.tools else "none")
        return Conversation(
            messages=[message.model_dump(exclude_none=True) for message in self.messages],
            tools=[tool.model_dump(exclude_none=True) for tool in self.tools],
            tool_choice=choice.model_dump() if isinstance(choice, NamedToolChoice) else choice,
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=self.response_format.constraint() if self.response_format is not None else None,
            reasoning_effort=self.reasoning_effort,
            chat_template_kwargs=self.chat_template_kwargs,
            cache_salt=self.prompt_cache_key,
        )

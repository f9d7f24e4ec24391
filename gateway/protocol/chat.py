"""`POST /v1/chat/completions`: the request, as OpenAI's and the pages' fields.

The ranges of the numbers are not here: they come from the model's parameter profile (`checks.with_ranges`).
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema, model_validator

from engine.base import Conversation, ResponseFormat, Sampling
from gateway.models.parameters import Route
from gateway.models.tiers import SERVICE_TIERS, ServiceTier
from gateway.protocol.body import Body, JSONObject, RequestBody, conflict
from gateway.protocol.chat_tools import ChatCustomTool, ChatFunctionTool, ToolChoice, Tools, choose, toolbox_of
from gateway.protocol.constraints import CONSTRAINT, Format, StructuredOutputs
from gateway.protocol.fields import CHAT, EMPTY, FieldTable, Unsupported
from gateway.protocol.messages import AssistantMessage, Messages
from gateway.protocol.schema import ASKED, JSONSchema, forbids, implies
from gateway.protocol.tools import NOT_RUN, SOME_TOOL, hosted_choice

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


ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
# Templates know no more than "high".
EFFORTS = {"xhigh": "high", "max": "high"}


class SamplingFields(RequestBody):
    """What the chat and the completion routes share, beside the sampling parameters of the model's profile."""

    model: str = Field(description="Name of the model.")
    stream: bool = Field(False, description="Whether the answer comes as server-sent events, or whole.")
    stream_options: StreamOptions | None = Field(None, description="`include_usage`: a last event tells the usage.")
    max_tokens: int | None = None
    n: int = 1
    logit_bias: LogitBias = Field(default_factory=dict, description="By token id: what is added to its logit.")
    user: str | None = Field(None, description="Your end user, by a name or a hash of yours; usage is summed by it.")
    store: Literal[False] | None = Field(None, description="Answers are not kept.")
    service_tier: ServiceTier | None = Field(None, description="One that the model offers; `auto` is the key's own.")

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

    messages: Messages = Field(description="The conversation so far, of system, user, assistant and tool.")
    max_completion_tokens: int | None = None
    tools: Tools = Field(default_factory=list, description="Functions that the model may call.")
    tool_choice: ToolChoice | None = Field(None, description="`none`, `auto`, `required`, or one function by its name.")
    parallel_tool_calls: bool = Field(True, description="Whether an answer may call several functions.")
    response_format: Format | None = Field(None, description="`json_object`, a `json_schema` or a `regex` to keep to.")
    structured_outputs: StructuredOutputs | None = Field(None, description="vLLM's way to ask for the same.")
    logprobs: bool = Field(False, description="Whether the answer has the log probability of each token.")
    top_logprobs: int | None = None
    reasoning_effort: ReasoningEffort | None = Field(None, description="How long a model that reasons does so.")
    include_reasoning: bool = Field(True, description="Whether the answer has the reasoning, too.")
    continue_final_message: bool = Field(False, description="Go on from the last message, the assistant's.")
    chat_template_kwargs: TemplateVariables = Field(default_factory=dict, description="For the chat template.")
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True, min_length=1, max_length=1)] | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        implies({"top_logprobs": {"type": "integer", "minimum": 1}}, {"logprobs": {"const": True}}),
        implies(
            {"tool_choice": {"anyOf": [{"const": "required"}, {"type": "object", "minProperties": 1}]}},
            {"tools": SOME_TOOL},
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
        tools = values.get("tools")
        if kind := hosted_choice(values.get("tool_choice"), tools if isinstance(tools, list) else ()):
            yield "tool_choice", NOT_RUN, kind

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
        if self.tool_choice not in (None, "none", "auto"):
            toolbox = toolbox_of(self.tools)
            if not toolbox.offered:
                raise conflict("tool_choice", "`tool_choice` asks for a function, and `tools` holds none.")
            choose(toolbox, self.tool_choice)
        return self

    @property
    def tokens_wanted(self) -> int | None:
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    def alternatives(self) -> int:
        return self.n * (self.top_logprobs or 0)

    @property
    def logprobs_wanted(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def customs(self) -> frozenset[str]:
        """The names of the custom tools."""
        return frozenset(tool.custom.name for tool in self.tools if isinstance(tool, ChatCustomTool))

    @property
    def left_out(self) -> Sequence[str]:
        """What of its tools the answer does without."""
        return () if all(isinstance(tool, ChatFunctionTool) for tool in self.tools) else toolbox_of(self.tools).left_out

    def make_prompt_source(self) -> Conversation:
        told, choice = choose(toolbox_of(self.tools), self.tool_choice)
        return Conversation(
            messages=[
                message.spoken() if isinstance(message, AssistantMessage) else message.model_dump(exclude_none=True)
                for message in self.messages
            ],
            tools=[tool.spoken() for tool in told],
            tool_choice=choice,
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=self.constraint,
            reasoning_effort=EFFORTS.get(self.reasoning_effort or "", self.reasoning_effort),
            chat_template_kwargs=self.chat_template_kwargs,
            continue_final=self.continue_final_message,
            schema_places=[tool.place for tool in told],
            held=frozenset(tool.told for tool in told if tool.held),
        )

    @property
    def constraint(self) -> ResponseFormat | None:
        asked = self.structured_outputs or self.response_format
        return asked.constraint() if asked is not None else None

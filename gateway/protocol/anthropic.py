"""`POST /v1/messages` and `/v1/messages/count_tokens`: the requests, as Anthropic's Messages API has them.

https://platform.claude.com/docs/en/api/messages. The ranges of the numbers come from the model's parameter profile, as
on the chat route: `temperature` goes as far as the profile allows, which may be beyond Anthropic's 1. `max_tokens` may
be left out. Marks that change nothing here (`cache_control`, `citations`, `is_error`, ...) are accepted.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, FailFast, Field, JsonValue, Tag, model_validator

from gateway.models.parameters import Route
from gateway.protocol.blocks import BY_TYPE, LIST, MAYBE_EMPTY, TEXT, TEXT_OR_LIST, field_of, only
from gateway.protocol.body import Body, JSONObject, RequestBody, conflict
from gateway.protocol.fields import MESSAGES, FieldTable, Unsupported
from gateway.protocol.messages import MESSAGES_MAX, TOOLS_MAX
from gateway.protocol.schema import SENT, JSONSchema, implies

CacheControl = dict[str, JsonValue] | None


class TextBlock(Body):
    type: Literal["text"]
    text: str = Field(min_length=1)
    cache_control: CacheControl = None
    citations: list[JsonValue] | None = None


class ThinkingBlock(Body):
    """Thinking of before, as the API gave it."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Body):
    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: str
    name: str = Field(min_length=1, max_length=256)
    input: dict[str, JsonValue]
    cache_control: CacheControl = None
    caller: dict[str, JsonValue] | None = None


Texts = Annotated[Annotated[str, TEXT] | Annotated[list[TextBlock], *LIST], TEXT_OR_LIST, only("text")]


class ResultText(TextBlock):
    """Of a tool's result, which may be empty."""

    text: str


Result = Annotated[Annotated[str, TEXT] | Annotated[list[ResultText], *MAYBE_EMPTY], TEXT_OR_LIST, only("text")]


class ToolResultBlock(Body):
    type: Literal["tool_result"]
    tool_use_id: str
    content: Result | None = None
    is_error: bool | None = None
    cache_control: CacheControl = None


UserBlock = Annotated[
    Annotated[TextBlock, Tag("block:text")] | Annotated[ToolResultBlock, Tag("block:tool_result")],
    BY_TYPE,
]
AssistantBlock = Annotated[
    Annotated[TextBlock, Tag("block:text")]
    | Annotated[ToolUseBlock, Tag("block:tool_use")]
    | Annotated[ThinkingBlock, Tag("block:thinking")]
    | Annotated[RedactedThinkingBlock, Tag("block:redacted_thinking")],
    BY_TYPE,
]


class UserTurn(Body):
    role: Literal["user"]
    content: Annotated[
        Annotated[str, TEXT] | Annotated[list[UserBlock], *LIST],
        TEXT_OR_LIST,
        only("text", "tool_result"),
    ]


class AssistantTurn(Body):
    role: Literal["assistant"]
    content: Annotated[
        Annotated[str, TEXT] | Annotated[list[AssistantBlock], *LIST],
        TEXT_OR_LIST,
        only("text", "tool_use", "thinking", "redacted_thinking"),
    ]


class SystemTurn(Body):
    """A system message between the others; whether it may stand there is for the model's chat template to say."""

    role: Literal["system"]
    content: Texts


def _of_known_role(value: object) -> object:
    if field_of(value, "role") not in ("user", "assistant", "system"):
        raise ValueError("a message is an object with the `role` user, assistant or system, and `content`.")
    return value


Turn = Annotated[
    Annotated[UserTurn, Tag("role:user")]
    | Annotated[AssistantTurn, Tag("role:assistant")]
    | Annotated[SystemTurn, Tag("role:system")],
    Discriminator(lambda value: f"role:{field_of(value, 'role')}"),
    BeforeValidator(_of_known_role),
]


class ClientTool(Body):
    """A function that the client runs."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    input_schema: dict[str, JsonValue]
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl = None
    eager_input_streaming: bool | None = None


class ToolPolicy(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (implies({"type": {"const": "tool"}}, {"name": SENT}),)

    @model_validator(mode="after")
    def _named(self) -> "ToolPolicy":
        if self.type == "tool" and self.name is None:
            raise ValueError("the type tool needs the tool's `name`.")
        return self


class Thinking(Body):
    """`disabled` asks a model that can for no thinking; `adaptive` leaves it to the model, as does no `thinking`."""

    type: Literal["disabled", "adaptive"]


class JSONOutput(Body):
    type: Literal["json_schema"]
    json_schema: dict[str, JsonValue] = Field(alias="schema")


class OutputConfig(Body):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JSONOutput | None = None


class EndUser(Body):
    user_id: str | None = None


class CountTokensBody(RequestBody):
    """What the prompt depends on."""

    ROUTE: ClassVar[Route] = "messages"
    FIELDS: ClassVar[FieldTable] = MESSAGES
    PROMPT: ClassVar[frozenset[str]] = frozenset({"messages", "system"})
    EMPTIES: ClassVar[frozenset[str]] = frozenset({"system", "tools", "tool_choice", "thinking", "output_config"})
    NO_CALLS: ClassVar[JSONSchema] = {
        "type": "object",
        "properties": {"type": {"const": "none"}},
        "required": ["type"],
    }

    model: str
    messages: Annotated[list[Turn], FailFast(), Field(min_length=1, max_length=MESSAGES_MAX)]
    system: Texts | None = None
    tools: Annotated[list[ClientTool], FailFast(), Field(max_length=TOOLS_MAX)] = Field(default_factory=list)
    tool_choice: ToolPolicy | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        implies(
            {
                "tool_choice": {
                    "type": "object",
                    "properties": {"type": {"enum": ["any", "tool"]}},
                    "required": ["type"],
                }
            },
            {"tools": {"type": "array", "minItems": 1}},
        ),
    )

    @classmethod
    def unsupported(cls, values: JSONObject) -> Iterator[Unsupported]:
        if values.get("speed", "standard") != "standard":
            yield "speed", "there is one speed, `standard`", values["speed"]
        thinking = values.get("thinking")
        if isinstance(thinking, dict) and thinking.get("type") == "enabled":
            yield "thinking", 'a budget of thinking tokens can\'t be kept; {"type": "adaptive"} can', thinking
        tools = values.get("tools")
        for index, tool in enumerate(tools if isinstance(tools, list) else ()):
            kind = tool.get("type", "custom") if isinstance(tool, dict) else "custom"
            if kind not in ("custom", None):
                yield f"tools[{index}]", "this gateway runs no tools itself; the type custom is a client's", kind

    @model_validator(mode="after")
    def _consistent(self) -> "CountTokensBody":
        choice = self.tool_choice
        if choice is not None and choice.type in ("any", "tool") and not self.tools:
            raise conflict("tool_choice", "`tool_choice` asks for a tool, and `tools` holds none.")
        if choice is not None and choice.type == "tool" and choice.name not in [tool.name for tool in self.tools]:
            raise conflict("tool_choice", "`tool_choice` names a tool that isn't in `tools`.")
        return self

    def make_prompt_source(self) -> dict[str, Any]:
        """For `engine.messages_format`."""
        return self.model_dump(exclude_none=True, by_alias=True, include=set(CountTokensBody.model_fields))


class MessagesBody(CountTokensBody):
    max_tokens: int | None = None
    stream: bool = False
    metadata: EndUser | None = None
    service_tier: Literal["auto", "standard_only"] | None = None

    @property
    def tier(self) -> str | None:
        return "default" if self.service_tier == "standard_only" else None

    @property
    def user(self) -> str | None:
        return self.metadata.user_id if self.metadata is not None else None

"""The turns of a conversation as Anthropic's clients send them, and what stands in them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag

from gateway.protocol.anthropic_tools import CacheControl, ToolChange
from gateway.protocol.blocks import BY_TYPE, LIST, MAYBE_EMPTY, TEXT, TEXT_OR_LIST, only
from gateway.protocol.body import Body, field_of

# What Anthropic's own servers put into an answer: their tools' calls and results, a summary, another model's turn.
FOREIGN = r"(?:server|mcp)_tool_use|[a-z_]+_tool_result|compaction|fallback|container_upload"


class TextBlock(Body):
    """An empty text says nothing, and is passed over."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl = None
    citations: list[JsonValue] | None = None


class ThinkingBlock(Body):
    """Thinking of before, as the API gave it. Nobody looks at the signature: it may be another server's."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Body):
    """Thinking that only Anthropic can read: passed over."""

    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(Body):
    type: Literal["tool_use"]
    id: str
    name: str = Field(min_length=1, max_length=256)
    input: dict[str, JsonValue]
    cache_control: CacheControl = None
    caller: dict[str, JsonValue] | None = None


class ForeignBlock(Body):
    """A part of an answer of Anthropic's that this gateway has no use for: passed over."""

    type: str = Field(pattern=f"^(?:{FOREIGN})$")


class ToolReference(Body):
    """In the result of a client's search for tools: the tool is told to the model from here on."""

    type: Literal["tool_reference"]
    tool_name: str


Texts = Annotated[Annotated[str, TEXT] | Annotated[list[TextBlock], *LIST], TEXT_OR_LIST, only("text")]

ResultBlock = Annotated[
    Annotated[TextBlock, Tag("block:text")] | Annotated[ToolReference, Tag("block:tool_reference")], BY_TYPE
]
Result = Annotated[
    Annotated[str, TEXT] | Annotated[list[ResultBlock], *MAYBE_EMPTY],
    TEXT_OR_LIST,
    only("text", "tool_reference"),
]


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


def _kind(block: object) -> str:
    kind = field_of(block, "type")
    own = kind in ("text", "tool_use", "thinking", "redacted_thinking")
    return f"block:{kind}" if own or not isinstance(kind, str) else "block:foreign"


AssistantBlock = Annotated[
    Annotated[TextBlock, Tag("block:text")]
    | Annotated[ToolUseBlock, Tag("block:tool_use")]
    | Annotated[ThinkingBlock, Tag("block:thinking")]
    | Annotated[RedactedThinkingBlock, Tag("block:redacted_thinking")]
    | Annotated[ForeignBlock, Tag("block:foreign")],
    Discriminator(_kind),
]
SystemBlock = Annotated[
    Annotated[TextBlock, Tag("block:text")]
    | Annotated[ToolChange, Tag("block:tool_addition")]
    | Annotated[ToolChange, Tag("block:tool_removal")],
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
    """One without content says nothing: Claude Code sends it after an answer that was broken off."""

    role: Literal["assistant"]
    content: Annotated[
        Annotated[str, TEXT] | Annotated[list[AssistantBlock], *MAYBE_EMPTY],
        TEXT_OR_LIST,
        only("text", "tool_use", "thinking", "redacted_thinking", others=FOREIGN),
    ]


class SystemTurn(Body):
    """A system message between the others; whether it may stand there is for the model's chat template to say."""

    role: Literal["system"]
    content: Annotated[
        Annotated[str, TEXT] | Annotated[list[SystemBlock], *LIST],
        TEXT_OR_LIST,
        only("text", "tool_addition", "tool_removal"),
    ]


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

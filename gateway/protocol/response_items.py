"""The items of a Responses request's `input`: messages, calls of tools and their results, reasoning.

An item says what it adds to the conversation in OpenAI's chat format (`gateway.protocol.response_conversation`).
"""

import base64
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag

from gateway.protocol.blocks import BY_TYPE, LIST, MAYBE_EMPTY, TEXT, TEXT_OR_LIST, joined, only
from gateway.protocol.body import Body, field_of
from gateway.protocol.messages import MESSAGES_MAX
from gateway.protocol.response_tools import Tools

# What hosted tools did, at another server: left out as the tools are.
HostedItemType = Literal[
    "code_interpreter_call",
    "file_search_call",
    "image_generation_call",
    "mcp_list_tools",
    "tool_search_call",
    "tool_search_output",
    "web_search_call",
]
HOSTED_ITEMS: tuple[str, ...] = get_args(HostedItemType)
ITEM_TYPES = (
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
    "additional_tools",
)
_ENCRYPTED = "farebox-1."


class TextPart(Body):
    """`annotations` and `logprobs` come back with an answer of before."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[JsonValue] | None = None
    logprobs: list[JsonValue] | None = None


class RefusalPart(Body):
    type: Literal["refusal"]
    refusal: str


Part = Annotated[
    Annotated[TextPart, Tag("block:input_text")]
    | Annotated[TextPart, Tag("block:output_text")]
    | Annotated[RefusalPart, Tag("block:refusal")],
    BY_TYPE,
]
Output = Annotated[
    Annotated[str, TEXT] | Annotated[list[TextPart], *MAYBE_EMPTY], TEXT_OR_LIST, only("input_text", "output_text")
]


class MessageItem(Body):
    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[
        Annotated[str, TEXT] | Annotated[list[Part], *LIST],
        TEXT_OR_LIST,
        only("input_text", "output_text", "refusal"),
    ]
    id: str | None = None
    status: str | None = None

    @property
    def begun(self) -> bool:
        """Whether it is the beginning of an answer, which the model is to go on from."""
        return self.role == "assistant" and self.status in ("in_progress", "incomplete")

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.refusal if isinstance(part, RefusalPart) else part.text for part in self.content)


class FunctionCallItem(Body):
    """A call that the model made. `arguments` is JSON as it wrote it; `namespace` is that of the function, if any."""

    type: Literal["function_call"]
    call_id: str
    name: str = Field(min_length=1, max_length=256)
    namespace: str | None = None
    arguments: str
    id: str | None = None


class CustomCallItem(Body):
    """A call of a custom tool, whose input is a text."""

    type: Literal["custom_tool_call"]
    call_id: str
    name: str = Field(min_length=1, max_length=256)
    namespace: str | None = None
    input: str = ""
    id: str | None = None


class ResultItem(Body):
    """What the client's tool gave."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str
    output: Output
    id: str | None = None

    @property
    def text(self) -> str:
        return joined(self.output)


class SummaryText(Body):
    type: Literal["summary_text"]
    text: str


class ReasoningText(Body):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Body):
    """Reasoning of before, as the API gave it. `encrypted_content` of another server can't be read, and is passed
    over."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: Annotated[list[SummaryText], Field(fail_fast=True, max_length=MESSAGES_MAX)] = Field(default_factory=list)
    content: Annotated[list[ReasoningText], Field(fail_fast=True, max_length=MESSAGES_MAX)] | None = None
    encrypted_content: str | None = None

    @property
    def text(self) -> str:
        return joined(self.content or ()) or revealed(self.encrypted_content or "") or joined(self.summary)


class AdditionalTools(Body):
    """More tools, from here on; here they count from the beginning."""

    type: Literal["additional_tools"]
    tools: Tools


class HostedItem(Body):
    """What a tool did that a server ran: left out, and named in `farebox-ignored`."""

    type: HostedItemType


def concealed(text: str) -> str:
    """Reasoning as a client sends it back: opaque to it. It isn't secret: the text stands beside it."""
    return _ENCRYPTED + base64.b64encode(text.encode()).decode()


def revealed(content: str) -> str:
    """The text of `concealed`; none where it is another server's."""
    if not content.startswith(_ENCRYPTED):
        return ""
    try:
        return base64.b64decode(content.removeprefix(_ENCRYPTED), validate=True).decode()
    except ValueError:
        return ""


def item_type(value: object) -> object:
    """A message need not say that it is one."""
    return field_of(value, "type") or "message"


def _of_known_type(value: object) -> object:
    kind = item_type(value)
    if not isinstance(value, dict | Body) or (kind not in ITEM_TYPES and kind not in HOSTED_ITEMS):
        raise ValueError(f"an item is an object of type {' or '.join(ITEM_TYPES)}.")
    return value


def _tag(value: object) -> str:
    kind = item_type(value)
    return "item:hosted" if kind in HOSTED_ITEMS else f"item:{kind}"


Item = Annotated[
    Annotated[MessageItem, Tag("item:message")]
    | Annotated[FunctionCallItem, Tag("item:function_call")]
    | Annotated[ResultItem, Tag("item:function_call_output")]
    | Annotated[CustomCallItem, Tag("item:custom_tool_call")]
    | Annotated[ResultItem, Tag("item:custom_tool_call_output")]
    | Annotated[ReasoningItem, Tag("item:reasoning")]
    | Annotated[AdditionalTools, Tag("item:additional_tools")]
    | Annotated[HostedItem, Tag("item:hosted")],
    Discriminator(_tag),
    BeforeValidator(_of_known_type),
]
Items = Annotated[Annotated[str, TEXT] | Annotated[list[Item], *LIST], TEXT_OR_LIST]

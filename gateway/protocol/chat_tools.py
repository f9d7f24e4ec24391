"""`tools` and `tool_choice` of the chat route, as OpenAI's clients send them."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, FailFast, Field, Tag

from engine.base import JSONValue
from gateway.protocol.body import Body, field_of
from gateway.protocol.tools import (
    TOOLS_MAX,
    CustomFields,
    FunctionTool,
    HostedTool,
    Offered,
    Ref,
    Toolbox,
    allowed,
    chosen,
    of_known_type,
    tag_of,
)


class ChatFunctionTool(Body):
    """A function that the model may call: "Currently, only functions are supported as a tool." (the pages)"""

    type: Literal["function"]
    function: FunctionTool


class ChatCustomTool(Body):
    """A tool whose input is a text. The model is told of a function with the one string `input`."""

    type: Literal["custom"]
    custom: CustomFields


Tool = Annotated[
    Annotated[ChatFunctionTool, Tag("tool:function")]
    | Annotated[ChatCustomTool, Tag("tool:custom")]
    | Annotated[HostedTool, Tag("tool:hosted")],
    Discriminator(tag_of),
    of_known_type("function", "custom"),
]
Tools = Annotated[list[Tool], FailFast(), Field(max_length=TOOLS_MAX)]


class ToolName(Body):
    name: str


class NamedFunctionTool(Body):
    type: Literal["function"]
    function: ToolName

    @property
    def ref(self) -> Ref:
        return Ref(self.type, self.function.name)


class NamedCustomTool(Body):
    type: Literal["custom"]
    custom: ToolName

    @property
    def ref(self) -> Ref:
        return Ref(self.type, self.custom.name)


class NamedHostedTool(Body):
    """One of the tools that were left out."""

    type: str

    @property
    def ref(self) -> Ref:
        return Ref(self.type, "")


def _ref_tag(value: object) -> str:
    kind = field_of(value, "type")
    return f"choice:{kind}" if kind in ("function", "custom") else "choice:hosted"


class AllowedChatTools(Body):
    mode: Literal["auto", "required"]
    tools: Annotated[
        list[
            Annotated[
                Annotated[NamedFunctionTool, Tag("choice:function")]
                | Annotated[NamedCustomTool, Tag("choice:custom")]
                | Annotated[NamedHostedTool, Tag("choice:hosted")],
                Discriminator(_ref_tag),
            ]
        ],
        FailFast(),
        Field(min_length=1, max_length=TOOLS_MAX),
    ]


class AllowedChatToolsChoice(Body):
    """The model is told of these tools only."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedChatTools


def _choice_tag(value: object) -> str:
    return "choice:word" if isinstance(value, str) else f"choice:{field_of(value, 'type')}"


def _known_choice(value: object) -> object:
    if value not in ("none", "auto", "required") and _choice_tag(value) not in _CHOICES:
        raise ValueError(
            'it must be "none", "auto", "required" or {"type": "function", "function": {"name": ...}}, or an object of '
            "type custom or allowed_tools."
        )
    return value


_CHOICES = ("choice:function", "choice:custom", "choice:allowed_tools")
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("choice:word")]
    | Annotated[NamedFunctionTool, Tag("choice:function")]
    | Annotated[NamedCustomTool, Tag("choice:custom")]
    | Annotated[AllowedChatToolsChoice, Tag("choice:allowed_tools")],
    Discriminator(_choice_tag),
    BeforeValidator(_known_choice),
]


def toolbox_of(tools: Sequence[Tool]) -> Toolbox:
    toolbox = Toolbox()
    for index, tool in enumerate(tools):
        match tool:
            case ChatFunctionTool():
                toolbox.add_function(tool.function, f"tools[{index}].function.parameters")
            case ChatCustomTool():
                toolbox.add_custom(tool.custom, f"tools[{index}].custom.format")
            case HostedTool():
                toolbox.add_hosted(tool, f"tools[{index}]")
    return toolbox


def choose(toolbox: Toolbox, choice: ToolChoice | None) -> tuple[list[Offered], str | dict[str, JSONValue]]:
    """The tools that the model is told of, and the choice among them. Raises a conflict about `tool_choice`."""
    match choice:
        case NamedFunctionTool() | NamedCustomTool():
            return toolbox.offered, {"type": "function", "function": {"name": chosen(toolbox, choice.ref).told}}
        case AllowedChatToolsChoice():
            left = allowed(toolbox, [one.ref for one in choice.allowed_tools.tools])
            return left, choice.allowed_tools.mode if left else "none"
        case word:
            return toolbox.offered, word or ("auto" if toolbox.offered else "none")

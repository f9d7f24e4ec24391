"""`tools` and `tool_choice` of the Responses API: functions, custom tools, and namespaces of both."""

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


class ResponseFunctionTool(FunctionTool):
    """A function that the client runs, as the Responses API has it."""

    type: Literal["function"]


class ResponseCustomTool(CustomFields):
    type: Literal["custom"]


InnerTool = Annotated[
    Annotated[ResponseFunctionTool, Tag("tool:function")]
    | Annotated[ResponseCustomTool, Tag("tool:custom")]
    | Annotated[HostedTool, Tag("tool:hosted")],
    Discriminator(tag_of),
    of_known_type("function", "custom"),
]


class NamespaceTool(Body):
    """Functions that belong together, such as those of an MCP server."""

    type: Literal["namespace"]
    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    tools: Annotated[list[InnerTool], FailFast(), Field(max_length=TOOLS_MAX)] = Field(default_factory=list)


Tool = Annotated[
    Annotated[ResponseFunctionTool, Tag("tool:function")]
    | Annotated[ResponseCustomTool, Tag("tool:custom")]
    | Annotated[NamespaceTool, Tag("tool:namespace")]
    | Annotated[HostedTool, Tag("tool:hosted")],
    Discriminator(tag_of),
    of_known_type("function", "custom", "namespace"),
]
Tools = Annotated[list[Tool], FailFast(), Field(max_length=TOOLS_MAX)]


class NamedResponseTool(Body):
    type: Literal["function", "custom"]
    name: str
    namespace: str | None = None


class ResponseToolName(Body):
    """A tool, or all of a namespace; what names a hosted tool is passed over."""

    type: str
    name: str = ""
    namespace: str | None = None


class AllowedResponseTools(Body):
    """The model is told of these tools only."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[ResponseToolName], FailFast(), Field(min_length=1, max_length=TOOLS_MAX)]

    @property
    def refs(self) -> list[Ref]:
        return [Ref(ref.type, ref.name, ref.namespace) for ref in self.tools]


def _known_choice(value: object) -> object:
    if value not in ("none", "auto", "required") and field_of(value, "type") not in (
        "function",
        "custom",
        "allowed_tools",
    ):
        raise ValueError(
            'it must be "none", "auto", "required" or an object of type function, custom or allowed_tools.'
        )
    return value


def _choice_tag(value: object) -> str:
    if isinstance(value, str):
        return "choice:word"
    return "choice:allowed" if field_of(value, "type") == "allowed_tools" else "choice:named"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("choice:word")]
    | Annotated[NamedResponseTool, Tag("choice:named")]
    | Annotated[AllowedResponseTools, Tag("choice:allowed")],
    Discriminator(_choice_tag),
    BeforeValidator(_known_choice),
]


def put(toolbox: Toolbox, tools: Sequence[Tool | InnerTool], place: str, within: NamespaceTool | None = None) -> None:
    """The description of a namespace stands with its first function: once is enough."""
    namespace = within.name if within is not None else None
    for index, tool in enumerate(tools):
        here, about = f"{place}[{index}]", (within.description or "") if within is not None and not index else ""
        match tool:
            case ResponseFunctionTool():
                toolbox.add_function(tool, f"{here}.parameters", namespace, about)
            case ResponseCustomTool():
                toolbox.add_custom(tool, f"{here}.format", namespace, about)
            case NamespaceTool():
                put(toolbox, tool.tools, f"{here}.tools", tool)
            case HostedTool():
                toolbox.add_hosted(tool, here)


def choose(toolbox: Toolbox, choice: ToolChoice | None) -> tuple[list[Offered], str | dict[str, JSONValue]]:
    """The tools that the model is told of, and the chat API's `tool_choice` among them. Raises a conflict about it."""
    match choice:
        case NamedResponseTool():
            named = chosen(toolbox, Ref(choice.type, choice.name, choice.namespace))
            return toolbox.offered, {"type": "function", "function": {"name": named.told}}
        case AllowedResponseTools():
            left = allowed(toolbox, choice.refs)
            return left, choice.mode if left else "none"
        case word:
            return toolbox.offered, word or ("auto" if toolbox.offered else "none")

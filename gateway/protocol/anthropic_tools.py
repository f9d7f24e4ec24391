"""The tools of a request as Anthropic's clients send them, and the changes to them in the course of a conversation."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag, WithJsonSchema, model_validator

from gateway.protocol.body import Body, field_of
from gateway.protocol.schema import SENT, JSONSchema, implies

CacheControl = dict[str, JsonValue] | None

CUSTOM = ("custom", None)
SEARCH = "tool_search_tool"  # how the types of Anthropic's own search for tools begin


class ClientTool(Body):
    """A function that the client runs. With `defer_loading` the model isn't told of it until a `tool_reference` or a
    `tool_addition` names it, or where Anthropic's server would search for it."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    input_schema: dict[str, JsonValue]
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl = None
    eager_input_streaming: bool | None = None
    defer_loading: bool = False


class ServerTool(Body):
    """A tool that Anthropic's servers run or its models know by heart, such as `web_search_20250305`: it is left out,
    and named in `farebox-ignored`."""

    type: Annotated[str, WithJsonSchema({"type": "string", "not": {"const": "custom"}})]


def _tool(value: object) -> str:
    return "tool:custom" if field_of(value, "type") in CUSTOM else "tool:hosted"


def _of_some_type(value: object) -> object:
    kind = field_of(value, "type")
    if not isinstance(value, dict | Body) or not (kind is None or isinstance(kind, str)):
        raise ValueError("a tool is an object with `name` and `input_schema`, which the client runs.")
    return value


Tool = Annotated[
    Annotated[ClientTool, Tag("tool:custom")] | Annotated[ServerTool, Tag("tool:hosted")],
    Discriminator(_tool),
    BeforeValidator(_of_some_type),
]


class NamedTool(Body):
    """A tool of `tools`, or one that was defined earlier in the conversation."""

    type: Literal["tool_reference"]
    name: str


class DefinedTool(Body):
    type: Literal["tool_definition"]
    definition: Tool


class OtherTool(Body):
    """Tools of an MCP server that Anthropic would call: there are none here."""

    type: Literal["mcp_tool_reference", "mcp_toolset_reference"]


class ToolChange(Body):
    """In a system message: the tools that the model is told of change."""

    type: Literal["tool_addition", "tool_removal"]
    tool: Annotated[NamedTool | DefinedTool | OtherTool, Field(discriminator="type")]
    cache_control: CacheControl = None


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

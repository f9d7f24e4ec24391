"""`POST /v1/messages` and `/v1/messages/count_tokens`: the requests, as Anthropic's Messages API has them.

https://platform.claude.com/docs/en/api/messages. The ranges of the numbers come from the model's parameter profile, as
on the chat route: `temperature` goes as far as the profile allows, which may be beyond Anthropic's 1. `max_tokens` may
be left out. Marks that change nothing here (`cache_control`, `citations`, `is_error`, ...) are accepted.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import FailFast, Field, JsonValue, model_validator

from engine.base import Conversation, ResponseFormat
from gateway.models.parameters import Route
from gateway.protocol.anthropic_conversation import choice_of, left_out, messages_of, offered, spoken
from gateway.protocol.anthropic_tools import CUSTOM, CacheControl, ClientTool, Tool, ToolPolicy
from gateway.protocol.anthropic_turns import AssistantTurn, Texts, Turn
from gateway.protocol.body import Body, JSONObject, RequestBody, conflict, field_of
from gateway.protocol.fields import MESSAGES, FieldTable, Unsupported
from gateway.protocol.messages import MESSAGES_MAX
from gateway.protocol.schema import JSONSchema, implies
from gateway.protocol.tools import TOOLS_MAX

CLIENTS_TOOL: JSONSchema = {
    "type": "object",
    "properties": {"type": {"enum": list(CUSTOM)}},
    "required": ["name", "input_schema"],
}
_ASKS = {"type": "object", "properties": {"type": {"enum": ["any", "tool"]}}, "required": ["type"]}


class Thinking(Body):
    """`disabled` asks a model that can for no thinking; the others leave it to the model, as does no `thinking`.

    `budget_tokens` is kept where the engine can end a model's thinking, and named in `farebox-ignored` where it can't.
    """

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=1)] | None = None


ADAPTIVE = Thinking(type="adaptive")


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
    EMPTIES: ClassVar[frozenset[str]] = frozenset(
        {"system", "tools", "tool_choice", "thinking", "output_config", "output_format"}
    )
    NO_CALLS: ClassVar[JSONSchema] = {
        "type": "object",
        "properties": {"type": {"const": "none"}},
        "required": ["type"],
    }

    model: str
    messages: Annotated[list[Turn], FailFast(), Field(min_length=1, max_length=MESSAGES_MAX)]
    system: Texts | None = None
    tools: Annotated[list[Tool], FailFast(), Field(max_length=TOOLS_MAX)] = Field(default_factory=list)
    tool_choice: ToolPolicy | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: JSONOutput | None = Field(None, description="The older name of `output_config.format`.")
    cache_control: CacheControl = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        implies({"tool_choice": _ASKS}, {"tools": {"type": "array", "contains": CLIENTS_TOOL}}),
    )

    @classmethod
    def unsupported(cls, values: JSONObject) -> Iterator[Unsupported]:
        if values.get("speed", "standard") != "standard":
            yield "speed", "there is one speed, `standard`", values["speed"]
        tools, choice = values.get("tools"), values.get("tool_choice")
        hosted = [tool for tool in tools if field_of(tool, "type") not in CUSTOM] if isinstance(tools, list) else []
        named = field_of(choice, "type") == "tool" and [
            tool for tool in hosted if field_of(tool, "name") == field_of(choice, "name")
        ]
        if named or (field_of(choice, "type") == "any" and hosted and hosted == tools):
            yield "tool_choice", "this gateway runs no such tool, so no answer can be made with it", choice

    @classmethod
    def without_unusable(cls, values: JSONObject) -> tuple[JSONObject, tuple[str, ...]]:
        if not values.get("mcp_servers"):
            return values, ()
        return {name: value for name, value in values.items() if name != "mcp_servers"}, ("mcp_servers",)

    @model_validator(mode="after")
    def _consistent(self) -> "CountTokensBody":
        choice = self.tool_choice
        if choice is None or choice.type not in ("any", "tool"):
            return self
        tools = self._offered()
        if not tools:
            raise conflict("tool_choice", "`tool_choice` asks for a tool, and `tools` holds none.")
        if choice.type == "tool" and choice.name not in [tool.name for tool in tools]:
            raise conflict("tool_choice", "`tool_choice` names a tool that isn't in `tools`.")
        return self

    def _offered(self) -> list[ClientTool]:
        tools = offered(self.tools, self.messages)
        chosen = self.tool_choice.name if self.tool_choice is not None else None
        if chosen is None or any(tool.name == chosen for tool in tools):
            return tools
        return [*tools, *(tool for tool in self.tools if isinstance(tool, ClientTool) and tool.name == chosen)]

    def make_prompt_source(self) -> tuple[Conversation, list[str]]:
        """The conversation, and what of the request it does without.

        An assistant's message at the end is the beginning of the answer, as in Anthropic's API.
        """
        tools, config, thinking = (
            self._offered(),
            self.output_config or OutputConfig(),
            self.thinking or Thinking(type="adaptive"),
        )
        form = config.format or self.output_format
        place = "output_config.format.schema" if config.format is not None else "output_format.schema"
        conversation = Conversation(
            messages=messages_of(self.system, self.messages),
            tools=[spoken(tool) for tool in tools],
            tool_choice=choice_of(self.tool_choice, tools),
            parallel_tool_calls=self.tool_choice is None or not self.tool_choice.disable_parallel_tool_use,
            response_format=ResponseFormat("json_schema", form.json_schema, place=place) if form is not None else None,
            reasoning_effort="none" if thinking.type == "disabled" else config.effort,
            continue_final=isinstance(self.messages[-1], AssistantTurn),
            schema_field="input_schema",
            thinking_tokens_max=thinking.budget_tokens if thinking.type == "enabled" else None,
        )
        return conversation, left_out(self.tools, self.messages)


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

"""The messages of a conversation, as OpenAI's clients send them.

Page: "conversation messages: (user,assistant,tool)*,user including one system message anywhere". The order and the
number of system messages are left to the model's chat template, since clients send several.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    FailFast,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from gateway.protocol.body import Body, field_of
from gateway.protocol.schema import SENT, JSONSchema, one_of_fields
from gateway.protocol.tools import custom_arguments

MESSAGES_MAX = 10_000
TOOL_CALLS_MAX = 1024


class Part(Body):
    """A part of a message's content. Only text: other kinds are refused by name."""

    type: Literal["text"]
    text: str


def _text_parts(value: object) -> object:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError('it must be a string or a list of parts like {"type": "text", "text": "..."}.')  # noqa: TRY004
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if not (kind in ("text", "refusal") and isinstance(part.get(kind), str)):
            what = f'a part of type "{kind[:40]}"' if isinstance(kind, str) else "something else"
            raise ValueError(
                f'this model reads text only, as parts like {{"type": "text", "text": "..."}}; it holds {what}.'
            )
    return [{"type": "text", "text": part[part["type"]]} for part in value]


Content = Annotated[
    str | list[Part],
    BeforeValidator(_text_parts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "items": {
                        "anyOf": [
                            {
                                "type": "object",
                                "properties": {"type": {"const": kind}, kind: {"type": "string"}},
                                "required": ["type", kind],
                            }
                            for kind in ("text", "refusal")
                        ]
                    },
                },
            ],
            "description": "A text, or a list of parts. Other fields of a part, such as cache marks, change nothing.",
        }
    ),
]


class FunctionCall(Body):
    name: str = Field(min_length=1, max_length=256)
    arguments: str = "{}"


class FunctionToolCall(Body):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class CustomCall(Body):
    name: str = Field(min_length=1, max_length=256)
    input: str = ""


class CustomToolCall(Body):
    """A call of a custom tool, whose input is a text."""

    id: str
    type: Literal["custom"]
    custom: CustomCall

    def spoken(self) -> dict[str, object]:
        """The call of the function that the model was told of."""
        function = {"name": self.custom.name, "arguments": custom_arguments(self.custom.input)}
        return {"id": self.id, "type": "function", "function": function}


ToolCall = Annotated[
    Annotated[FunctionToolCall, Tag("call:function")] | Annotated[CustomToolCall, Tag("call:custom")],
    Discriminator(lambda value: "call:custom" if field_of(value, "type") == "custom" else "call:function"),
]


class SystemMessage(Body):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Body):
    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(Body):
    """An answer of before, as this or another API gave it.

    LangChain's ChatDeepInfra and LlamaIndex send `tool_calls: []` with an answer that had none.
    """

    EMPTIES: ClassVar[frozenset[str]] = frozenset({"tool_calls"})

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True, max_length=TOOL_CALLS_MAX)] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        {
            "anyOf": [
                one_of_fields(SENT, "content", "refusal", "reasoning_content", "reasoning"),
                one_of_fields({"type": "array", "minItems": 1}, "tool_calls"),
            ]
        },
    )

    def spoken(self) -> dict[str, Any]:
        """As the chat template gets it."""
        fields = self.model_dump(exclude_none=True)
        if any(isinstance(call, CustomToolCall) for call in self.tool_calls or ()):
            fields["tool_calls"] = [
                call.spoken() if isinstance(call, CustomToolCall) else call.model_dump(exclude_none=True)
                for call in self.tool_calls or ()
            ]
        return fields

    @model_validator(mode="after")
    def _says_something(self) -> "AssistantMessage":
        said = (self.content, self.refusal, self.reasoning_content, self.reasoning)
        if not self.tool_calls and all(one is None for one in said):
            raise ValueError("an assistant's message needs `content` or `tool_calls`.")
        return self


class ToolMessage(Body):
    role: Literal["tool"]
    content: Content = ""
    tool_call_id: str | None = None
    name: str | None = None


def _role(value: object) -> str:
    role = field_of(value, "role")
    return f"role:{'system' if role == 'developer' else role}"


Message = Annotated[
    Annotated[SystemMessage, Tag("role:system")]
    | Annotated[UserMessage, Tag("role:user")]
    | Annotated[AssistantMessage, Tag("role:assistant")]
    | Annotated[ToolMessage, Tag("role:tool")],
    Discriminator(_role),
]


# FailFast: a list of a million faults would make a million errors before the first is told.
Messages = Annotated[list[Message], FailFast(), Field(min_length=1, max_length=MESSAGES_MAX)]

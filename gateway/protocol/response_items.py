"""The items of a Responses request's `input`: messages, calls of functions and their results, reasoning."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag

from gateway.protocol.blocks import BY_TYPE, LIST, MAYBE_EMPTY, TEXT, TEXT_OR_LIST, field_of, joined, only
from gateway.protocol.body import Body
from gateway.protocol.messages import MESSAGES_MAX

ITEM_TYPES = ("message", "function_call", "function_call_output", "reasoning")
Status = Literal["in_progress", "completed", "incomplete"]


class TextPart(Body):
    """`annotations` and `logprobs` come back with an answer of before."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[JsonValue] | None = None
    logprobs: list[JsonValue] | None = None


class ResultPart(Body):
    type: Literal["input_text"]
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
Output = Annotated[Annotated[str, TEXT] | Annotated[list[ResultPart], *MAYBE_EMPTY], TEXT_OR_LIST, only("input_text")]


class MessageItem(Body):
    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[
        Annotated[str, TEXT] | Annotated[list[Part], *LIST],
        TEXT_OR_LIST,
        only("input_text", "output_text", "refusal"),
    ]
    id: str | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None

    @property
    def begun(self) -> bool:
        """Whether it is the beginning of an answer, which the model is to go on from."""
        return self.role == "assistant" and self.status in ("in_progress", "incomplete")

    def fields(self) -> dict[str, Any]:
        texts = (
            [part.refusal if isinstance(part, RefusalPart) else part.text for part in self.content]
            if (not isinstance(self.content, str))
            else [self.content]
        )
        return {"role": self.role, "content": "".join(texts)}


class FunctionCallItem(Body):
    """A call that the model made. `arguments` is JSON as it wrote it."""

    type: Literal["function_call"]
    call_id: str
    name: str = Field(min_length=1, max_length=256)
    arguments: str
    id: str | None = None
    status: Status | None = None

    def fields(self) -> dict[str, Any]:
        return self.model_dump(include={"type", "call_id", "name", "arguments"})


class FunctionResultItem(Body):
    """What the client's function gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: Output
    id: str | None = None
    status: Status | None = None

    def fields(self) -> dict[str, Any]:
        return {"type": self.type, "call_id": self.call_id, "output": joined(self.output)}


class SummaryText(Body):
    type: Literal["summary_text"]
    text: str


class ReasoningText(Body):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Body):
    """Reasoning of before, as the API gave it."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: Annotated[list[SummaryText], Field(fail_fast=True, max_length=MESSAGES_MAX)] = Field(default_factory=list)
    content: Annotated[list[ReasoningText], Field(fail_fast=True, max_length=MESSAGES_MAX)] | None = None
    status: Status | None = None

    def fields(self) -> dict[str, Any]:
        text = joined(self.content or self.summary)
        return {"type": self.type, "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


def item_type(value: object) -> object:
    """A message need not say that it is one."""
    return field_of(value, "type") or "message"


def _of_known_type(value: object) -> object:
    if not isinstance(value, dict | Body) or item_type(value) not in ITEM_TYPES:
        raise ValueError(f"an item is an object of type {' or '.join(ITEM_TYPES)}.")
    return value


Item = Annotated[
    Annotated[MessageItem, Tag("item:message")]
    | Annotated[FunctionCallItem, Tag("item:function_call")]
    | Annotated[FunctionResultItem, Tag("item:function_call_output")]
    | Annotated[ReasoningItem, Tag("item:reasoning")],
    Discriminator(lambda value: f"item:{item_type(value)}"),
    BeforeValidator(_of_known_type),
]
Items = Annotated[Annotated[str, TEXT] | Annotated[list[Item], *LIST], TEXT_OR_LIST]

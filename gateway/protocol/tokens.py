"""`POST /tokenize` and `/detokenize`: the requests, as vLLM has them."""

from typing import Annotated, ClassVar

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from engine.base import Conversation
from gateway.models.parameters import TOKEN_ID_MAX, Route
from gateway.protocol.body import RequestBody, conflict
from gateway.protocol.chat import TemplateVariables
from gateway.protocol.chat_tools import Tools
from gateway.protocol.completions import are_token_ids
from gateway.protocol.fields import TOKENIZE, FieldTable
from gateway.protocol.messages import Messages
from gateway.protocol.schema import NULL, SENT, JSONSchema, forbids, implies


def _ids(value: object) -> tuple[int, ...]:
    if isinstance(value, list) and are_token_ids(value):
        return tuple(value)
    raise ValueError("it must be a list of token ids.")


TokenIds = Annotated[
    tuple[int, ...],
    PlainValidator(_ids),
    WithJsonSchema({"type": "array", "items": {"type": "integer", "minimum": 0, "exclusiveMaximum": TOKEN_ID_MAX}}),
]


class TokenizeBody(RequestBody):
    """A text or a conversation."""

    ROUTE: ClassVar[Route] = "tokenize"
    FIELDS: ClassVar[FieldTable] = TOKENIZE
    EMPTIES: ClassVar[frozenset[str]] = frozenset({"tools", "chat_template_kwargs"})
    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        {
            "anyOf": [
                {"properties": {"prompt": SENT, "messages": NULL}, "required": ["prompt"]},
                {"properties": {"prompt": NULL, "messages": SENT}, "required": ["messages"]},
            ]
        },
        implies({"continue_final_message": {"const": True}}, {"messages": SENT}),
        forbids({"add_special_tokens": {"const": True}}, {"messages": SENT}),
    )

    model: str
    prompt: str | None = None
    messages: Messages = Field(default_factory=list)
    tools: Tools = Field(default_factory=list)
    add_special_tokens: bool | None = Field(
        None,
        description="Whether a text gets the tokenizer's own in front (true); a conversation has its template's.",
    )
    add_generation_prompt: bool = Field(True, description="Whether the template opens the answer.")
    continue_final_message: bool = False
    chat_template_kwargs: TemplateVariables = Field(default_factory=dict)
    return_token_strs: bool = Field(False, description="Whether to return the tokens as the vocabulary has them, too.")

    @model_validator(mode="after")
    def _consistent(self) -> "TokenizeBody":
        if (self.prompt is None) is not bool(self.messages):
            raise conflict("prompt", "Send `prompt` or `messages`, one of them.")
        if self.messages and self.add_special_tokens:
            raise conflict("add_special_tokens", "A conversation's special tokens are those of its chat template.")
        if self.continue_final_message and (not self.messages or self.messages[-1].role != "assistant"):
            raise conflict(
                "continue_final_message", "`continue_final_message` goes on from an assistant's message, the last one."
            )
        return self

    def make_prompt_source(self) -> Conversation | None:
        if not self.messages:
            return None
        return Conversation(
            messages=[message.model_dump(exclude_none=True) for message in self.messages],
            tools=[tool.model_dump(exclude_none=True) for tool in self.tools],
            tool_choice="auto" if self.tools else "none",
            chat_template_kwargs=self.chat_template_kwargs,
            continue_final=self.continue_final_message,
            opens_answer=self.add_generation_prompt,
        )


class DetokenizeBody(RequestBody):
    ROUTE: ClassVar[Route] = "tokenize"
    FIELDS: ClassVar[FieldTable] = TOKENIZE

    model: str
    tokens: TokenIds

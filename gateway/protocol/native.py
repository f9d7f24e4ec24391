"""`POST /v1/inference/{model}`: the request, as on the Llama 2 page, section "Input fields".

The ranges come from the `native` part of the model's parameter profile.
"""

from typing import ClassVar

from pydantic import Field, model_validator

from engine.base import ResponseFormat
from gateway.models.parameters import Route
from gateway.protocol.body import RequestBody, conflict
from gateway.protocol.constraints import Format
from gateway.protocol.schema import SENT, JSONSchema, forbids


class NativeBody(RequestBody):
    """`input` is the prompt as it is: the model's chat format, if it needs one, is the client's to write."""

    ROUTE: ClassVar[Route] = "native"
    EMPTIES: ClassVar[frozenset[str]] = frozenset({"response_format", "webhook"})

    input: str = Field(min_length=1, description="Text to generate from, as it is; a BOS token is put in front.")
    max_new_tokens: int = 512
    num_responses: int = 1
    response_format: Format | None = Field(
        None, description="What the answer is held to: `json_object`, a `json_schema` or a `regex`."
    )
    webhook: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        json_schema_extra={"format": "uri", "pattern": "^https?://"},
        description="An http or https URL that gets the result when it is done; the answer comes at once, as `queued`.",
    )
    stream: bool = Field(False, description="Whether to send the tokens as server-sent events, one for each.")

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        forbids({"stream": {"const": True}}, {"num_responses": {"exclusiveMinimum": 1}, "webhook": SENT}),
    )

    @model_validator(mode="after")
    def _consistent(self) -> "NativeBody":
        if self.stream and self.num_responses > 1:
            raise conflict("num_responses", f"`num_responses` must be 1 with `stream`; got {self.num_responses}.")
        if self.stream and self.webhook is not None:
            raise conflict("webhook", "`webhook` can't be combined with `stream`; leave one of them out.")
        return self

    @property
    def constraint(self) -> ResponseFormat | None:
        return self.response_format.constraint() if self.response_format is not None else None

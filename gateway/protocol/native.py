"""`POST /v1/inference/{model}`: the request, as on the Llama 2 page, section "Input fields".

The ranges come from the `native` part of the model's parameter profile.
"""

from typing import Annotated, ClassVar

from pydantic import FailFast, Field, model_validator

from engine.base import ResponseFormat, Sampling
from gateway.protocol.chat import STOP_CHARACTERS_MAX, Format
from gateway.protocol.checks import Body, conflict
from gateway.protocol.schema import SENT, JSONSchema, forbids


class NativeBody(Body):
    """`input` is the prompt as it is: the model's chat format, if it needs one, is the client's to write."""

    input: str = Field(min_length=1, description="Text to generate from, as it is; a BOS token is put in front.")
    max_new_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 0.9
    min_p: float = 0.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=STOP_CHARACTERS_MAX)]], FailFast()] = Field(
        default_factory=list
    )
    num_responses: int = 1
    response_format: Format | None = None
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

    def sampling(self, max_tokens: int) -> Sampling:
        return Sampling(
            max_tokens=max_tokens,
            n=self.num_responses,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            stop=tuple(self.stop),
            # Streamed tokens carry their ids and log probabilities.
            logprobs=0 if self.stream else None,
        )

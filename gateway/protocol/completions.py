"""`POST /v1/completions`: the request, as OpenAI's legacy API has it, with the chat route's sampling fields.

The ranges of the numbers come from the model's parameter profile, as on the chat route.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from engine.base import Prompt, Renderer
from gateway.errors import InvalidParameter
from gateway.models.parameters import TOKEN_ID_MAX, Route
from gateway.protocol.body import conflict
from gateway.protocol.chat import SamplingFields
from gateway.protocol.constraints import CONSTRAINT, Format, StructuredOutputs
from gateway.protocol.fields import COMPLETIONS, FieldTable
from gateway.protocol.schema import JSONSchema, forbids, implies

LOGPROBS_MAX = 5  # OpenAI's bound

PROMPT_FORMS = "it must be a text, a list of texts, a list of token ids, or a list of lists of token ids."


def _prompts(value: object) -> tuple[str | tuple[int, ...], ...]:
    """The four forms of OpenAI's `prompt` as one: a tuple of prompts, each a text or token ids."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value:
        if are_token_ids(value):
            return (tuple(value),)
        if all(isinstance(item, str) for item in value):
            return tuple(value)
        if all(isinstance(item, list) and item and are_token_ids(item) for item in value):
            return tuple(tuple(item) for item in value)
    raise ValueError(PROMPT_FORMS)


def are_token_ids(items: Sequence[object]) -> bool:
    return all(type(item) is int and 0 <= item < TOKEN_ID_MAX for item in items)


_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "exclusiveMaximum": TOKEN_ID_MAX}}

Prompts = Annotated[
    tuple[str | tuple[int, ...], ...],
    PlainValidator(_prompts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "minItems": 1, "items": {"type": "string"}},
                _IDS,
                {"type": "array", "minItems": 1, "items": _IDS},
            ],
            "description": "What to go on from: a text, several texts, token ids, or several lists of token ids. "
            "An empty text works only where the model's tokenizer puts a token in front.",
        }
    ),
]


TEXTS: JSONSchema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


class CompletionBody(SamplingFields):
    ROUTE: ClassVar[Route] = "completions"
    FIELDS: ClassVar[FieldTable] = COMPLETIONS
    EMPTIES: ClassVar[frozenset[str]] = SamplingFields.EMPTIES | {"response_format", "structured_outputs"}

    prompt: Prompts
    echo: bool = Field(
        False,
        description="Whether each answer begins with its prompt; with `logprobs`, its lists then begin with the "
        "prompt's tokens, of which the first has no log probability.",
    )
    best_of: int | None = None
    logprobs: Annotated[int, Field(ge=0, le=LOGPROBS_MAX)] | None = None
    response_format: Format | None = None
    structured_outputs: StructuredOutputs | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        # A response format needs prompts that are texts; `text` constrains nothing.
        implies({"response_format": CONSTRAINT}, {"prompt": TEXTS}),
        implies({"structured_outputs": {"type": "object", "minProperties": 1}}, {"prompt": TEXTS}),
        forbids({"response_format": CONSTRAINT}, {"structured_outputs": {"type": "object", "minProperties": 1}}),
    )

    @model_validator(mode="after")
    def _consistent(self) -> "CompletionBody":
        if self.best_of is not None and self.best_of != self.n:
            raise conflict(
                "best_of",
                f"`best_of` must be left out or equal `n`, which is {self.n}; got {self.best_of}. Every answer that is "
                "generated is returned and charged.",
            )
        if self.structured_outputs is not None and self.response_format not in (None, Format(type="text")):
            raise conflict("structured_outputs", "`structured_outputs` and `response_format` exclude each other.")
        return self

    @property
    def scores_prompt(self) -> bool:
        """Whether the log probabilities of the prompt's tokens are asked for."""
        return self.echo and self.logprobs is not None

    def alternatives(self) -> int:
        return len(self.prompt) * self.n * (self.logprobs or 0)

    async def render(self, renderer: Renderer, prompts_max: int, scored_max: int) -> list[Prompt]:
        """The prompts in their order. Raises InvalidParameter, PromptError."""
        if len(self.prompt) > prompts_max:
            raise InvalidParameter(
                f"`prompt` may hold at most {prompts_max} prompts; got {len(self.prompt)}. Send the others in another "
                "request.",
                param="prompt",
            )
        asked = self.structured_outputs or self.response_format
        constraint = asked.constraint() if asked is not None else None
        if constraint is not None and not all(isinstance(prompt, str) for prompt in self.prompt):
            raise InvalidParameter(
                "`response_format` and `structured_outputs` need prompts that are texts; got token ids.",
                param="prompt",
            )
        rendered = [
            await renderer.text(prompt, constraint) if isinstance(prompt, str) else renderer.token_ids(prompt)
            for prompt in self.prompt
        ]
        if any(prompt.tokens == 0 for prompt in rendered):
            raise InvalidParameter(
                "`prompt` is empty, and this model needs a token to go on from. Send some text.", param="prompt"
            )
        tokens = sum(prompt.tokens for prompt in rendered) * self.n
        if self.scores_prompt and tokens > scored_max:
            raise InvalidParameter(
                f"`echo` with `logprobs` returns the log probabilities of at most {scored_max} prompt tokens, over all "
                f"prompts and answers; these are {tokens}. Send fewer prompts, or shorter ones.",
                param="echo",
            )
        return rendered

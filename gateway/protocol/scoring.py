"""`POST .../score` and `.../rerank`: the requests, as vLLM, Jina and Cohere have them."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from gateway.models.parameters import Route
from gateway.protocol.body import RequestBody, conflict
from gateway.protocol.embeddings import INPUTS_MAX
from gateway.protocol.fields import SCORE, FieldTable
from gateway.protocol.schema import NULL, SENT, JSONSchema


def _texts(value: object) -> tuple[str, ...]:
    """A text, or a list of texts, as a tuple."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and 0 < len(value) <= INPUTS_MAX and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError(f"it must be a text or a list of 1 to {INPUTS_MAX} texts.")


_LIST: JSONSchema = {"type": "array", "minItems": 1, "maxItems": INPUTS_MAX, "items": {"type": "string"}}
Texts = Annotated[tuple[str, ...], PlainValidator(_texts), WithJsonSchema({"anyOf": [{"type": "string"}, _LIST]})]

# The names of the two sides.
FORMS = (("queries", "documents"), ("text_1", "text_2"), ("queries", "items"), ("data_1", "data_2"))
SIDES = tuple(dict.fromkeys(name for form in FORMS for name in form))


def _one_form() -> JSONSchema:
    def form(names: tuple[str, str]) -> JSONSchema:
        properties = {name: SENT if name in names else NULL for name in SIDES}
        return {"properties": properties, "required": list(names)}

    return {"anyOf": [form(names) for names in FORMS]}


class ScoreBody(RequestBody):
    """Two sides of texts: one with one, one with each of several, or each with the one at its place."""

    ROUTE: ClassVar[Route] = "score"
    FIELDS: ClassVar[FieldTable] = SCORE
    RULES: ClassVar[tuple[JSONSchema, ...]] = (_one_form(),)

    model: str
    queries: Texts | None = None
    documents: Texts | None = Field(None, description="What each query is compared with; `items` means the same.")
    items: Texts | None = None
    text_1: Texts | None = Field(None, description="`queries`, as vLLM called them first.")
    text_2: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    user: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ScoreBody":
        sent = {name for name in SIDES if getattr(self, name) is not None}
        if sent not in map(set, FORMS):
            names = " or ".join(f"`{one}` and `{other}`" for one, other in FORMS)
            raise conflict("queries", f"Two sides are compared: send {names}.")
        first, second = self.sides
        if len(first) not in (1, len(second)):
            raise conflict(
                self.form[0],
                f"`{self.form[0]}` must be one text, or as many as `{self.form[1]}`, which are {len(second)}; got "
                f"{len(first)}.",
            )
        return self

    @property
    def form(self) -> tuple[str, str]:
        """What the two sides are called in this request."""
        return next(names for names in FORMS if all(getattr(self, name) is not None for name in names))

    @property
    def sides(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        one, other = self.form
        return getattr(self, one), getattr(self, other)

    def pairs(self) -> Iterator[tuple[str, str]]:
        first, second = self.sides
        return zip(first * len(second) if len(first) == 1 else first, second, strict=True)


class RerankBody(RequestBody):
    ROUTE: ClassVar[Route] = "score"
    FIELDS: ClassVar[FieldTable] = SCORE

    model: str
    query: str
    documents: Texts
    top_n: Annotated[int, Field(ge=0)] = Field(0, description="How many results to return; 0: all.")
    return_documents: bool = Field(True, description="Whether the results hold the documents' text.")
    user: str | None = None

    def pairs(self) -> Iterator[tuple[str, str]]:
        return ((self.query, document) for document in self.documents)

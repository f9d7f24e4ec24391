"""`POST .../embeddings`: the request, as OpenAI's API has it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gateway.models.parameters import Route
from gateway.protocol.body import RequestBody
from gateway.protocol.completions import Prompts
from gateway.protocol.fields import EMBEDDINGS, FieldTable

INPUTS_MAX = 2048  # OpenAI's bound


class EmbeddingsBody(RequestBody):
    ROUTE: ClassVar[Route] = "embeddings"
    FIELDS: ClassVar[FieldTable] = EMBEDDINGS

    model: str
    input: Annotated[Prompts, Field(min_length=1, max_length=INPUTS_MAX)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Fewer than the model's own, where it was made for that."
    )
    user: str | None = None

"""`POST .../embeddings`: the request, as OpenAI's API has it, and the answer."""

import base64
import struct
from typing import Annotated, ClassVar, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from gateway.metered import Metered
from gateway.parameters import Route
from gateway.protocol.checks import Body
from gateway.protocol.completions import Prompts
from gateway.protocol.fields import EMBEDDINGS, FieldTable
from pricing.money import usd_number

INPUTS_MAX = 2048  # OpenAI's bound


class EmbeddingsBody(Body):
    ROUTE: ClassVar[Route | None] = "embeddings"
    FIELDS: ClassVar[FieldTable] = EMBEDDINGS

    model: str
    input: Annotated[Prompts, Field(min_length=1, max_length=INPUTS_MAX)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Fewer than the model's own, where it was made for that."
    )
    user: str | None = None


class EmbeddingUsage(TypedDict):
    """The engine's count. `estimated_cost` is what was charged, in US dollars."""

    prompt_tokens: int
    total_tokens: int
    estimated_cost: float


class EmbeddingFields(TypedDict):
    """As numbers, or as base64 of little-endian 32-bit floats."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(TypedDict):
    id: NotRequired[str]
    object: Literal["list"]
    model: str
    data: list[EmbeddingFields]
    usage: EmbeddingUsage


async def embeddings(metered: Metered, body: EmbeddingsBody) -> Embeddings:
    """The whole answer, in the order of the input. Reads all deltas."""
    data: dict[int, EmbeddingFields] = {}
    async for delta in metered:
        vector = list(delta.embedding or ())
        value = vector if body.encoding_format == "float" else _packed(vector)
        data[delta.index] = {"object": "embedding", "index": delta.index, "embedding": value}
    tokens = metered.counts.prompt
    return {
        "id": metered.job.request_id,
        "object": "list",
        "model": body.model,
        "data": [data[index] for index in sorted(data)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "estimated_cost": usd_number(metered.cost)},
    }


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

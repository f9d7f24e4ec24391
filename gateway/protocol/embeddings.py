"""`POST .../embeddings`: the request, as OpenAI's API has it, and the answer."""

import asyncio
import base64
import json
import struct
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from gateway.metered import Metered
from gateway.parameters import Route
from gateway.protocol.body import RequestBody
from gateway.protocol.completions import Prompts
from gateway.protocol.fields import EMBEDDINGS, FieldTable
from pricing.money import usd_number

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


async def embeddings(metered: Metered, body: EmbeddingsBody) -> bytes:
    """The whole answer (`Embeddings`) in the order of the input, as JSON. Reads all deltas.

    Two thousand vectors are millions of numbers: each vector is written when it is there, and others get their turn.
    """
    data: dict[int, bytes] = {}
    async for delta in metered:
        vector = list(delta.embedding or ())
        value = vector if body.encoding_format == "float" else _packed(vector)
        data[delta.index] = _json({"object": "embedding", "index": delta.index, "embedding": value})
        await asyncio.sleep(0)
    tokens = metered.counts.prompt
    head = _json({"id": metered.job.request_id, "object": "list", "model": body.model})
    usage = _json({"prompt_tokens": tokens, "total_tokens": tokens, "estimated_cost": usd_number(metered.cost)})
    vectors = b",".join([data[index] for index in sorted(data)])
    return b'%b,"data":[%b],"usage":%b}' % (head[:-1], vectors, usage)


def _json(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

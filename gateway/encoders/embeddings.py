"""The answer of `POST .../embeddings`, written vector by vector."""

import asyncio
import base64
import struct

from gateway.encoders.chunks import around, compact
from gateway.protocol.embeddings import EmbeddingsBody
from gateway.request.metered_generation import Metered
from gateway.schemas.embeddings import EmbeddingFields, Embeddings
from pricing.money import usd_number


async def embeddings(metered: Metered, body: EmbeddingsBody) -> bytes:
    """The whole answer (`Embeddings`) in the order of the input, as JSON. Reads all deltas.

    Two thousand vectors are millions of numbers: each vector is written when it is there, and others get their turn.
    """
    data: dict[int, bytes] = {}
    async for delta in metered:
        vector = list(delta.embedding or ())
        value = vector if body.encoding_format == "float" else _packed(vector)
        fields: EmbeddingFields = {"object": "embedding", "index": delta.index, "embedding": value}
        data[delta.index] = compact(fields).encode()
        await asyncio.sleep(0)
    tokens = metered.counts.prompt
    answer: Embeddings = {
        "id": metered.job.request_id,
        "object": "list",
        "model": body.model,
        "data": [],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "estimated_cost": usd_number(metered.cost)},
    }
    head, tail = around(answer, "data")
    return b"%b%b%b" % (head.encode(), b",".join([data[index] for index in sorted(data)]), tail.encode())


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

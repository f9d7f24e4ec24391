"""The answer of `POST .../embeddings`, written vector by vector."""

import asyncio
import base64
import json
import struct
from collections.abc import Mapping

from gateway.protocol.embeddings import EmbeddingsBody
from gateway.request.metered_generation import Metered
from pricing.money import usd_number


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

"""The answers of `POST .../score` and `.../rerank`."""

import time

from gateway.protocol.scoring import RerankBody, ScoreBody
from gateway.request.metered_generation import Metered
from gateway.schemas.embeddings import EmbeddingUsage
from gateway.schemas.scoring import Ranked, Ranking, Scores
from pricing.money import usd_number


async def scores(metered: Metered, body: ScoreBody) -> Scores:
    """In the order of the pairs. Reads all deltas."""
    found = await _found(metered)
    return {
        "id": metered.job.request_id,
        "object": "list",
        "created": int(time.time()),
        "model": body.model,
        "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(found)],
        "usage": _usage(metered),
    }


async def ranking(metered: Metered, body: RerankBody) -> Ranking:
    """The most relevant first, equal ones in their order. Reads all deltas."""
    found = await _found(metered)
    order = sorted(range(len(found)), key=lambda index: -found[index])
    return {
        "id": metered.job.request_id,
        "model": body.model,
        "results": [_ranked(index, found[index], body) for index in order[: body.top_n or None]],
        "usage": _usage(metered),
    }


def _ranked(index: int, score: float, body: RerankBody) -> Ranked:
    ranked: Ranked = {"index": index, "relevance_score": score}
    if body.return_documents:
        ranked["document"] = {"text": body.documents[index]}
    return ranked


async def _found(metered: Metered) -> list[float]:
    found = [0.0] * metered.job.choices
    async for delta in metered:
        (found[delta.index],) = delta.embedding or (0.0,)
    return found


def _usage(metered: Metered) -> EmbeddingUsage:
    tokens = metered.counts.prompt
    return {"prompt_tokens": tokens, "total_tokens": tokens, "estimated_cost": usd_number(metered.cost)}

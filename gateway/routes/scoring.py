"""Scores of pairs and rankings, in vLLM's, Jina's and Cohere's shapes, for cards with `task = "score"`."""

from collections.abc import Sequence

from engine.base import Sampling
from gateway.encoders.scoring import ranking, scores
from gateway.models.fleet import Served
from gateway.protocol.operation import JSON, Operation, documented
from gateway.protocol.scoring import RerankBody, ScoreBody
from gateway.request.exchange import Exchange
from gateway.request.generations import Embedding, Part
from gateway.request.jobs import Job, check_fits
from gateway.routes.common import new_id
from gateway.schemas.scoring import Ranking, Scores

TAG = "Scores"
NOTHING = Sampling(max_tokens=0)


@documented(
    Operation(
        TAG,
        "Score pairs of texts",
        "How well the texts of each pair go together, as the model was taught. All pairs are one request: one "
        "reservation, one entry of the ledger. Prompt tokens are charged.",
        body=ScoreBody,
        task="score",
        answers={JSON: Scores},
        admitted=True,
    )
)
async def score(exchange: Exchange, served: Served, body: ScoreBody) -> None:
    """`POST .../score`."""
    job = await _job(exchange, served, "score", list(body.pairs()), body.form[1], body.user)
    async with exchange.pipeline.run(job) as metered:
        await exchange.respond(await scores(metered, body))


@documented(
    Operation(
        TAG,
        "Order documents by how well they answer a query",
        "One request however many documents there are. Prompt tokens are charged.",
        body=RerankBody,
        task="score",
        answers={JSON: Ranking},
        admitted=True,
    )
)
async def rerank(exchange: Exchange, served: Served, body: RerankBody) -> None:
    """`POST .../rerank`."""
    job = await _job(exchange, served, "rerank", list(body.pairs()), "documents", body.user)
    async with exchange.pipeline.run(job) as metered:
        await exchange.respond(await ranking(metered, body))


async def _job(
    exchange: Exchange, served: Served, kind: str, pairs: Sequence[tuple[str, str]], param: str, user: str | None
) -> Job:
    parts = []
    for query, document in pairs:
        prompt = await served.renderer.pair(query, document, param)
        check_fits(served, prompt, param)
        parts.append(Part(prompt, NOTHING, Embedding()))
    return exchange.job(new_id(kind), served, parts, stream=False, user=user)

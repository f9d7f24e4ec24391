"""OpenAI's embeddings, under `/v1/embeddings` and `/v1/openai/embeddings`, for cards with `task = "embed"`."""

from engine.base import Prompt, Sampling
from gateway.encoders.embeddings import embeddings as answer
from gateway.models.fleet import Served
from gateway.protocol.embeddings import EmbeddingsBody
from gateway.protocol.operation import JSON, Operation, documented
from gateway.request.exchange import Exchange
from gateway.request.generations import Embedding, Part
from gateway.request.jobs import check_fits
from gateway.routes.common import new_id
from gateway.schemas.embeddings import Embeddings

NOTHING = Sampling(max_tokens=0)


@documented(
    Operation(
        "Embeddings",
        "Turn texts into vectors",
        "Several texts are one request: one reservation, one entry of the ledger. Prompt tokens are charged.",
        body=EmbeddingsBody,
        task="embed",
        answers={JSON: Embeddings},
        admitted=True,
    )
)
async def embeddings(exchange: Exchange, served: Served, body: EmbeddingsBody) -> None:
    """`POST .../embeddings`."""
    parts = [Part(await _prompt(served, one), NOTHING, Embedding(body.dimensions)) for one in body.input]
    job = exchange.job(new_id("emb"), served, parts, stream=False, user=body.user)
    async with exchange.pipeline.run(job) as metered:
        await exchange.respond(await answer(metered, body))


async def _prompt(served: Served, text: str | tuple[int, ...]) -> Prompt:
    renderer = served.renderer
    prompt = await renderer.text(text, param="input") if isinstance(text, str) else renderer.token_ids(text, "input")
    check_fits(served, prompt, "input")
    return prompt

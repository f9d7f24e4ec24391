"""A line of a batch, run as any request is: by the handler of its route, through the pipeline, and charged once.

What differs: nobody waits for it, so it has no limits of its own and the engine begins it last; and its answer goes to
the batch's results before it is charged.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.types import Message

from engine.base import Engine
from gateway.batches.batch import Batch, Result, Tally
from gateway.batches.checker import FileCheck
from gateway.batches.room import Room
from gateway.batches.work import Keep, Line
from gateway.errors import GatewayError, InvalidAPIKey, from_exception
from gateway.errors.shapes import error_body
from gateway.limits.admission import LimitDefaults, RateLimits
from gateway.limits.memory_store import MemoryStore
from gateway.protocol.batches import BODIES, MESSAGES
from gateway.request.context import RequestContext
from gateway.request.exchange import Exchange, Runs
from gateway.request.jobs import Job
from gateway.request.metered_generation import Admitted, Metered
from gateway.routes import anthropic, embeddings, openai, responses
from gateway.routes.endpoint import Generating
from gateway.state import Gateway
from gateway.telemetry.logs import log_request
from gateway.telemetry.tracing import UNTRACED
from pricing.cost import Tokens
from pricing.tier import Tier

KEEP_SECONDS = 5.0  # for a result to be written whose process is being stopped

ENDPOINTS: Mapping[str, Generating] = {
    "/v1/chat/completions": Generating(openai.chat_completions),
    "/v1/completions": Generating(openai.completions),
    "/v1/embeddings": Generating(embeddings.embeddings),
    "/v1/responses": Generating(responses.responses),
    MESSAGES: Generating(anthropic.messages),
}


class BatchLines:
    """Runs lines for `gateway.batches.work`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._rooms: dict[Engine, Room] = {}
        self._unlimited = RateLimits(MemoryStore(), LimitDefaults())

    @property
    def ready(self) -> bool:
        return not self._gateway.stopping

    def room(self, batch: Batch, line: Line) -> Room | None:
        model = batch.model if batch.model is not None else from_json(line.body).get("model")
        engine = self._gateway.fleet.engine_of(model) if isinstance(model, str) else None
        if engine is None:
            return None
        if engine not in self._rooms:
            self._rooms[engine] = Room(engine, self._gateway.settings.batch_requests_max, self._behind)
        return self._rooms[engine]

    def _behind(self) -> bool:
        gateway = self._gateway
        return (
            gateway.stopping
            or not gateway.ledger.available
            or gateway.behind_seconds > gateway.settings.loop_delay_seconds_max / 2
        )

    async def run(self, batch: Batch, line: Line, keep: Keep) -> None:
        gateway = self._gateway
        key = gateway.keys.by_id(batch.key_id)
        if key is None:
            raise InvalidAPIKey
        free = replace(key.terms, requests_per_minute=None, tokens_per_minute=None, concurrent_requests=None)
        context = RequestContext(f"{batch.id}-{line.number}", batch.endpoint, UNTRACED)
        pipeline = _Watched(gateway.pipeline)
        answer = _Answer(line, pipeline, keep)
        exchange = Exchange(
            settings=gateway.settings,
            pipeline=pipeline,
            webhooks=gateway.webhooks,
            context=context,
            key=key,
            body=line.body,
            path_params={},
            headers=Headers({}),
            send=answer.send,
            admission=self._unlimited.admission(replace(key, terms=free), context.limit_headers),
            turn=gateway.large_bodies.turn(key.id),
            write=None,
            tier=Tier.BATCH,
        )
        try:
            await ENDPOINTS[batch.endpoint].handle(gateway, exchange)
        except Exception as error:
            context.code = from_exception(error).code
            raise
        finally:
            log_request(
                {
                    "batch": batch.id,
                    "line": line.number,
                    "route": batch.endpoint,
                    "key": key.prefix,
                    **({"code": context.code} if context.code else {}),
                    **context.fields,
                }
            )

    def error_body(self, batch: Batch, error: GatewayError, request_id: str) -> str:
        return json.dumps(error_body(error, batch.endpoint, request_id), ensure_ascii=False)

    def checks(self, batch: Batch, path: Path) -> FileCheck:
        gateway, settings = self._gateway, self._gateway.settings
        key = gateway.keys.by_id(batch.key_id)
        task = "embed" if batch.endpoint == "/v1/embeddings" else "generate"
        profiles = {
            model.name: model.profile
            for model in gateway.catalog
            if model.card.task == task and key is not None and key.allows(model.name)
        }
        assert batch.endpoint in BODIES
        return FileCheck(
            path,
            batch.endpoint,
            profiles,
            settings.batch_lines_max,
            settings.body_bytes_max,
            settings.unknown_fields,
        )


class _Watched:
    """The pipeline, for a job that is charged as a whole; what it runs can be looked at."""

    def __init__(self, pipeline: Runs) -> None:
        self._pipeline = pipeline
        self.metered: Metered | None = None

    @asynccontextmanager
    async def run(self, job: Job, admitted: Admitted | None = None) -> AsyncIterator[Metered]:
        async with self._pipeline.run(replace(job, whole=True), admitted) as metered:
            self.metered = metered
            yield metered


class _Answer:
    """Where the handler sends its answer to: once it is whole it is kept, and only then counts."""

    def __init__(self, line: Line, pipeline: _Watched, keep: Keep) -> None:
        self._line = line
        self._pipeline = pipeline
        self._keep = keep
        self._status = 0
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._end()

    async def _end(self) -> None:
        metered = self._pipeline.metered
        assert metered is not None
        line, counts, tokens = self._line, metered.counts, metered.tokens
        tally = Tally(0, 0, tokens.prompt, tokens.cached, tokens.completion, counts.reasoning, metered.cost)
        body = self._body.decode()
        result = Result(line.number, line.custom_id, metered.job.request_id, self._status, body, tally)
        metered.kept = await self._kept(result, tokens)

    async def _kept(self, result: Result, tokens: Tokens) -> bool:
        """Write it, however often this is cancelled meanwhile: whether it is charged must be known."""
        writing = asyncio.ensure_future(self._keep(result, tokens))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            metered = self._pipeline.metered
            assert metered is not None
            await asyncio.wait({writing}, timeout=KEEP_SECONDS)
            if writing.done() and not writing.cancelled() and writing.exception() is None:
                metered.kept = True
            else:
                writing.cancel()
            raise
        return True

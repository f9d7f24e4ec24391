"""What a request asks of the engine: one prompt, several, or no tokens. To the pipeline each is one Generation."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.base import Delta, EmbeddingRequest, Engine, Generation, GenerationRequest, Prompt, Sampling, TokenCounts


@dataclass(frozen=True, slots=True)
class Embedding:
    """Instead of going on from a prompt: its vector, shorter than the model's own where `dimensions` says so."""

    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One prompt and how to go on from it. All parts of a request have the same `sampling.n`."""

    prompt: Prompt
    sampling: Sampling
    embedding: Embedding | None = None


@dataclass(frozen=True, slots=True)
class Handling:
    """How the engine is to handle all parts of a request; see `engine.base.GenerationRequest`."""

    trace_headers: Mapping[str, str] = field(default_factory=dict)
    stream: bool = True
    cache_salt: str | None = None
    priority: int = 0
    began: Callable[[], None] | None = None


async def start(engine: Engine, request_id: str, parts: Sequence[Part], handling: Handling) -> Generation:
    """Hand every part to the engine, or none: where one is refused, the others are stopped again.

    Raises EngineOverloaded, EngineDead, PromptError.
    """
    if len(parts) == 1:
        return await _start(engine, request_id, parts[0], handling)
    started: list[Generation] = []
    try:
        for index, part in enumerate(parts):
            started.append(await _start(engine, f"{request_id}-{index}", part, handling))
    except BaseException:
        for generation in started:
            await generation.aclose()
        raise
    return Together(started, parts[0].sampling.n)


async def _start(engine: Engine, request_id: str, part: Part, handling: Handling) -> Generation:
    if part.embedding is not None:
        dimensions = part.embedding.dimensions
        return await engine.embed(
            EmbeddingRequest(request_id, part.prompt, dimensions, handling.trace_headers, handling.priority)
        )
    if part.sampling.max_tokens == 0:
        return NoTokens(part.prompt.tokens, part.sampling.n)
    return await engine.generate(
        GenerationRequest(
            request_id,
            part.prompt,
            part.sampling,
            handling.trace_headers,
            handling.stream,
            handling.cache_salt,
            handling.priority,
            handling.began,
        )
    )


class Together(Generation):
    """Several generations as one. Its choices are numbered as OpenAI does: all of the first prompt, then the next's.

    A slow reader holds the generations back, so that the engine merges their tokens; its counts move on all the same.
    """

    def __init__(self, generations: Sequence[Generation], n: int) -> None:
        self._generations = generations
        self._open = len(generations)
        self._arrived: asyncio.Queue[Delta | Exception | None] = asyncio.Queue(maxsize=len(generations))
        self._pumps = [
            asyncio.create_task(self._pump(generation, index * n)) for index, generation in enumerate(generations)
        ]

    @property
    def counts(self) -> TokenCounts:
        counts = [generation.counts for generation in self._generations]
        return TokenCounts(
            prompt=sum(one.prompt for one in counts),
            cached=sum(one.cached for one in counts),
            completion=sum(one.completion for one in counts),
            reasoning=sum(one.reasoning for one in counts),
        )

    def __aiter__(self) -> "Together":
        return self

    async def __anext__(self) -> Delta:
        while self._open:
            arrived = await self._arrived.get()
            if isinstance(arrived, Exception):
                raise arrived
            if arrived is not None:
                return arrived
            self._open -= 1
        raise StopAsyncIteration

    async def _pump(self, generation: Generation, first_index: int) -> None:
        try:
            async for delta in generation:
                delta.index += first_index
                await self._arrived.put(delta)
            await self._arrived.put(None)
        except Exception as error:
            await self._arrived.put(error)

    async def aclose(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        for generation in self._generations:
            await generation.aclose()


class NoTokens(Generation):
    """The generation of `max_tokens: 0`: no engine can be asked for nothing."""

    def __init__(self, prompt_tokens: int, n: int) -> None:
        self._counts = TokenCounts(prompt_tokens)
        self._deltas = iter([Delta(index, "", 0, finish_reason="length") for index in range(n)])

    @property
    def counts(self) -> TokenCounts:
        return self._counts

    def __aiter__(self) -> "NoTokens":
        return self

    async def __anext__(self) -> Delta:
        for delta in self._deltas:
            return delta
        raise StopAsyncIteration

    async def aclose(self) -> None:
        return None

"""What a request asks of the engine: one prompt, several, or no tokens. To the pipeline each is one Generation."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.adapters import Adapter
from engine.base import Delta, EmbeddingRequest, Engine, Generation, GenerationRequest, Prompt, Sampling, TokenCounts
from engine.tokens import TokenLogprobs


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
    adapter: Adapter | None = None
    began: Callable[[], None] | None = None


async def start(engine: Engine, request_id: str, parts: Sequence[Part], handling: Handling) -> Generation:
    """Hand every part to the engine, or none: where one is refused, the others are stopped again.

    Raises EngineOverloaded, EngineDead, PromptError.
    """

    async def begin(request_id: str, part: Part) -> Generation:
        headers, priority, adapter = handling.trace_headers, handling.priority, handling.adapter
        if part.embedding is not None:
            dimensions = part.embedding.dimensions
            return await engine.embed(EmbeddingRequest(request_id, part.prompt, dimensions, headers, priority))
        request = GenerationRequest(
            request_id,
            part.prompt,
            part.sampling,
            headers,
            handling.stream,
            handling.cache_salt,
            priority,
            handling.began,
            adapter,
        )
        if part.sampling.max_tokens == 0:
            nothing = NoTokens(part.prompt.tokens, part.sampling.n)
            if part.sampling.prompt_logprobs is None:
                return nothing
            one = replace(part.sampling, max_tokens=1, n=1, logprobs=None)
            request = replace(request, sampling=one, stream=False, cache_salt=None)
            return PromptScores(await engine.generate(request), nothing)
        return await engine.generate(request)

    if len(parts) == 1:
        return await begin(request_id, parts[0])
    started: list[Generation] = []
    try:
        for index, part in enumerate(parts):
            started.append(await begin(f"{request_id}-{index}", part))
    except BaseException:
        for generation in started:
            await generation.aclose()
        raise
    return Together(started, parts[0].sampling.n)


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


class PromptScores(Generation):
    """`nothing` with the prompt's log probabilities, which an engine only tells with a token: that is dropped."""

    def __init__(self, generation: Generation, nothing: NoTokens) -> None:
        self._generation = generation
        self._nothing = nothing
        self._scores: Collection[TokenLogprobs] | None = None

    @property
    def counts(self) -> TokenCounts:
        return replace(self._generation.counts, completion=0, reasoning=0)

    def __aiter__(self) -> "PromptScores":
        return self

    async def __anext__(self) -> Delta:
        if self._scores is None:
            self._scores = (await self._generation.__anext__()).prompt_logprobs or ()
        delta = await self._nothing.__anext__()
        delta.prompt_logprobs = self._scores
        return delta

    async def aclose(self) -> None:
        await self._generation.aclose()

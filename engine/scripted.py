"""An engine that plays a script (`engine.script`): for the faults that a real engine can't be asked for.

It needs no vLLM. A token is a word with the whitespace in front of it, in prompts and in answers; a prompt of token ids
has as many tokens as ids. Of the sampling parameters it heeds `max_tokens`, `n` (each choice plays the whole script),
`logprobs` and `prompt_logprobs`: every token has the log probability LOGPROB. Requests that wait for a seat go in the
order of their `priority`, as vLLM's do.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence

from engine.adapters import Adapter
from engine.base import (
    ChatFormat,
    Delta,
    EmbeddingRequest,
    EngineSpec,
    EngineState,
    FinishReason,
    Generation,
    GenerationRequest,
    Sampling,
    TokenCounts,
    ToolCallDelta,
)
from engine.errors import (
    EngineDead,
    EngineError,
    EngineOverloaded,
    EngineStartError,
    GenerationFailed,
)
from engine.json_text import mended, whole_characters
from engine.load import EngineLoad
from engine.script import RequestScript, Script, Step
from engine.scripted_deltas import joined
from engine.scripted_renderer import ScriptedRenderer
from engine.scripted_seats import Seats
from engine.scripted_vocabulary import WORD, ScriptedVocabulary, tokens_of
from engine.tokens import TokenLogprobs

LOGPROB = -0.5
DIMENSIONS = 8
UNBOUNDED = 256  # seats of an engine whose script names no number
_DEAD = "The engine has stopped; the server must be restarted."


class ScriptedGeneration(Generation):
    """See `engine.base.Generation`. It goes on playing while nobody reads, as a real engine does.

    With a `vector` it says nothing, and ends with that.
    """

    def __init__(
        self,
        engine: "ScriptedEngine",
        request: GenerationRequest,
        script: RequestScript,
        vector: Sequence[float] | None = None,
    ) -> None:
        self._engine = engine
        self._vector = vector
        self._request = request
        self._script = script
        self._completion = [0] * request.sampling.n
        self._reasoning = [0] * request.sampling.n
        self._ready: deque[Delta] = deque()
        self._news = asyncio.Event()
        self._error: EngineError | None = None
        self._done = False
        self._task = asyncio.get_running_loop().create_task(self._play())

    @property
    def counts(self) -> TokenCounts:
        prompt = self._request.prompt.tokens
        cached = min(self._script.cached, prompt)
        return TokenCounts(prompt, cached, sum(self._completion), sum(self._reasoning))

    def __aiter__(self) -> "ScriptedGeneration":
        return self

    async def __anext__(self) -> Delta:
        while not self._ready or not (self._request.stream or self._done):
            if self._error is not None:
                raise self._error
            if self._done:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._ready.popleft()

    async def aclose(self) -> None:
        self.end(None)
        self._ready.clear()

    def end(self, error: EngineError | None) -> None:
        """Stops playing, with an error for the reader or without."""
        if not self._done:
            self._done, self._error = True, error
            self._task.cancel()
            self._engine.running.discard(self)
            self._news.set()

    async def _play(self) -> None:
        try:
            async with self._engine.seats.of(self._request.priority):
                if self._request.began is not None:
                    self._request.began()
                for index in range(self._request.sampling.n):
                    await self._play_choice(index)
            self.end(None)
        except EngineError as error:
            self.end(error)

    async def _play_choice(self, index: int) -> None:
        whole: Delta | None = None
        prompt = self._prompt_logprobs()
        async for delta in self._deltas(index):
            delta.prompt_logprobs, prompt = prompt, None
            whole = delta if whole is None or self._request.stream else joined(whole, delta)
            if self._request.stream:
                self._give(delta)
        if whole is not None and not self._request.stream:
            self._give(whole)

    def _give(self, delta: Delta) -> None:
        self._ready.append(delta)
        self._news.set()

    async def _deltas(self, index: int) -> AsyncIterator[Delta]:
        reason: FinishReason = "stop"
        calls = 0
        for step in self._script.steps:
            if step.kind == "finish":
                reason = step.text  # type: ignore[assignment]  # the script says which
                break
            if step.kind not in ("emit", "bytes", "reason", "call"):
                await self._happen(step)
                continue
            if self._vector is not None:
                continue
            for delta in self._tokens(index, step, calls):
                yield delta
                await asyncio.sleep(0)
                if self._completion[index] >= self._request.sampling.max_tokens:
                    yield self._delta(index, finish_reason="length")
                    return
            if step.kind == "call":
                calls, reason = calls + 1, "tool_calls"
        yield self._delta(index, finish_reason=reason)

    async def _happen(self, step: Step) -> None:
        if step.kind == "sleep":
            await asyncio.sleep(step.seconds)
        elif step.kind == "hang":
            await asyncio.Event().wait()
        elif step.kind == "fail":
            raise GenerationFailed(step.text)
        elif step.kind == "die":
            self._engine.die()
            raise EngineDead(_DEAD)

    def _tokens(self, index: int, step: Step, calls: int) -> Iterator[Delta]:
        """Each token is counted when it is taken."""
        first, text, arguments = True, whole_characters(step.text), mended(step.arguments)
        for word, data in tokens_of(step):
            self._completion[index] += 1
            if step.kind == "reason":
                self._reasoning[index] += 1
            delta = self._delta(index, text=word if step.kind in ("emit", "bytes") else "")
            delta.logprobs = self._logprobs(data)
            if step.kind == "reason":
                delta.reasoning = word
            elif step.kind == "call":
                call_id, name = (f"call_{calls}", text) if first else (None, None)
                delta.tool_calls = (ToolCallDelta(calls, call_id, name, word if arguments else ""),)
            first = False
            yield delta

    def _logprobs(self, data: bytes) -> list[TokenLogprobs] | None:
        """The alternatives of a token are the token itself and the same with apostrophes."""
        wanted = self._request.sampling.logprobs
        return None if wanted is None else [self._scored(data, wanted)]

    def _prompt_logprobs(self) -> list[TokenLogprobs] | None:
        wanted = self._request.sampling.prompt_logprobs
        if wanted is None:
            return None
        return [self._scored(word.encode(), wanted) for word in WORD.findall(str(self._request.prompt.handle))[1:]]

    def _scored(self, data: bytes, alternatives: int) -> TokenLogprobs:
        id_of = self._engine.vocabulary.id_of
        ids = [id_of(data), *(id_of(data + b"'" * rank) for rank in range(alternatives))]
        return TokenLogprobs(ids, [LOGPROB, *(LOGPROB - rank for rank in range(alternatives))])

    def _delta(self, index: int, text: str = "", finish_reason: FinishReason | None = None) -> Delta:
        return Delta(
            index,
            text,
            self._completion[index],
            self.counts.cached,
            self._reasoning[index],
            finish_reason,
            embedding=self._vector if finish_reason else None,
        )


class ScriptedEngine:
    """See `engine.base.Engine`. `running` holds the generations that are playing or wait for one of the `seats`."""

    def __init__(self, script: Script, spec: EngineSpec | None = None) -> None:
        self._script = script
        self._spec = spec or EngineSpec("scripted:")
        self._state = EngineState.STARTING
        self._turn = 0
        self.seats = Seats(script.max_num_seqs)
        self.vocabulary = ScriptedVocabulary()
        self.lag_seconds = 0.0
        self.running: set[ScriptedGeneration] = set()
        self.adapters = {adapter.number: adapter for adapter in self._spec.adapters}

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def context_length(self) -> int:
        return self._spec.context_length or self._script.context_length

    @property
    def has_room(self) -> bool:
        return self.load.requests <= self.load.seats

    @property
    def load(self) -> EngineLoad:
        requests, seats = len(self.running), self._script.max_num_seqs
        return (
            EngineLoad(requests, UNBOUNDED) if seats is None else EngineLoad(requests, seats, max(0, requests - seats))
        )

    async def start(self) -> None:
        await asyncio.sleep(self._script.start_seconds)
        if self._script.start_error is not None:
            self._state = EngineState.DEAD
            raise EngineStartError(self._script.start_error)
        self._state = EngineState.READY

    async def stop(self) -> None:
        self._end_all(EngineState.STOPPED)

    def die(self) -> None:
        """The engine is gone: every running generation raises EngineDead."""
        self._end_all(EngineState.DEAD)

    def _end_all(self, state: EngineState) -> None:
        if self._state is not EngineState.STOPPED:
            self._state = state
        for generation in list(self.running):
            generation.end(EngineDead(_DEAD))

    def renderer(self, chat_format: ChatFormat) -> ScriptedRenderer:
        return ScriptedRenderer(chat_format, self.vocabulary)

    async def load_adapter(self, adapter: Adapter) -> None:
        """Takes any, by its number."""
        await self.check()
        self.adapters[adapter.number] = adapter

    async def unload_adapter(self, adapter: Adapter) -> None:
        await self.check()
        self.adapters.pop(adapter.number, None)

    async def generate(self, request: GenerationRequest) -> ScriptedGeneration:
        return await self._begin(request)

    async def embed(self, request: EmbeddingRequest) -> ScriptedGeneration:
        """The vector is the prompt's number of tokens and DIMENSIONS - 1 zeros, or fewer; the score is the first."""
        dimensions = 1 if self._spec.task == "score" else request.dimensions
        vector = [float(request.prompt.tokens), *[0.0] * (DIMENSIONS - 1)][:dimensions]
        silent = GenerationRequest(
            request.request_id, request.prompt, Sampling(max_tokens=0), stream=False, priority=request.priority
        )
        return await self._begin(silent, vector)

    async def _begin(self, request: GenerationRequest, vector: Sequence[float] | None = None) -> ScriptedGeneration:
        await self.check()
        script = self._choose(str(request.prompt.handle))
        if script.steps and script.steps[0].kind == "reject":
            raise EngineOverloaded("The engine's queue is full; try again in a moment.")
        generation = ScriptedGeneration(self, request, script, vector)
        self.running.add(generation)
        return generation

    def _choose(self, text: str) -> RequestScript:
        for script in self._script.requests:
            if script.match is not None and script.match in text:
                return script
        in_turn = [script for script in self._script.requests if script.match is None]
        if not in_turn:
            return Script().requests[0]
        chosen = in_turn[min(self._turn, len(in_turn) - 1)]
        self._turn += 1
        return chosen

    async def check(self) -> None:
        if self._state is not EngineState.READY:
            raise EngineDead(f"The scripted engine is {self._state.value}.")

"""From engine steps to readers: what vLLM's `OutputProcessor` does for each token, without its objects.

vLLM builds a `CompletionOutput` and a `RequestOutput` per token and sets an `asyncio.Event`, and for each alternative
of a log probability it decodes a token and makes an object, all of which it keeps. A reader here gets a tuple per
token, at once or when it asks (`Inbox`), with the engine's own arrays of log probabilities. vLLM's detokenizer, stop
strings and bookkeeping are used as they are. Requests whose queue is not an `Inbox` take vLLM's own path.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from vllm.outputs import PoolingRequestOutput, RequestOutput
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.output_processor import OutputProcessor, OutputProcessorOutput, RequestState
from vllm.v1.engine.parallel_sampling import ParentRequest
from vllm.v1.metrics.stats import IterationStats
from vllm.v1.outputs import LogprobsLists

from engine.vllm_internals.detokenizer import PlainDetokenizer, plain, read_prompts_end
from engine.vllm_internals.stats import ServingStats


class Scores(NamedTuple):
    """The log probabilities of one engine step, as [tokens, 1 + alternatives]: the chosen token, then the likeliest."""

    ids: np.ndarray
    logprobs: np.ndarray


class Piece(NamedTuple):
    """What one choice gained in one engine step."""

    choice: int
    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None
    stop_reason: int | str | None
    logprobs: list[Scores] | None


# A Piece as it is made for each token: a named tuple takes six times as long to make.
RawPiece = tuple[int, str, list[int], FinishReason | None, int | str | None, list[Scores] | None]


class Inbox:
    """Where the output handler puts the pieces of one request, for its one reader.

    `listener` is called when there is something to take, or an error: unless it streams, only when all choices are
    done. It must not raise. `completion` counts the tokens of each choice as they arrive, read or not. `alternatives`
    is how many log probabilities a token has beside its own. `began` is called once, with the first token.
    `prompt_scores` are those of the prompt's tokens after the first, and come with the first piece.
    """

    __slots__ = (
        "alternatives",
        "began",
        "cached",
        "completion",
        "error",
        "listener",
        "pieces",
        "prompt_scores",
        "request_id",
        "states",
        "streams",
        "unfinished",
    )

    def __init__(self, n: int, streams: bool, alternatives: int = 0) -> None:
        self.request_id = ""
        self.streams = streams
        self.alternatives = alternatives
        self.pieces: list[RawPiece] = []
        self.prompt_scores: Scores | None = None
        self.states: list[RequestState] = []
        self.completion = [0] * n
        self.cached = 0
        self.unfinished = n
        self.error: Exception | None = None
        self.listener: Callable[[], None] | None = None
        self.began: Callable[[], None] | None = None

    def push(self, piece: RawPiece, wake: bool) -> None:
        """`wake`: the reader, now; else `tell` must be called later."""
        self.pieces.append(piece)
        self.completion[piece[0]] += len(piece[2])
        if piece[3] is not None:
            self.unfinished -= 1
        if wake and self.listener is not None and (self.streams or not self.unfinished):
            self.listener()

    def tell(self) -> None:
        """Wake the reader, if there is something for it."""
        if self.listener is not None and (self.streams or not self.unfinished):
            self.listener()

    def put(self, output: RequestOutput | PoolingRequestOutput | Exception) -> None:
        """vLLM's side of the queue: errors for all readers, and the last word on an aborted request (not needed)."""
        if isinstance(output, Exception):
            self.error = output
            if self.listener is not None:
                self.listener()

    def take(self) -> list[RawPiece]:
        """All pieces since the last call, or none when there is nothing to read yet."""
        if self.unfinished and not self.streams:
            return []
        pieces, self.pieces = self.pieces, []
        return pieces

    def news(self) -> "asyncio.Future[None]":
        """Done as soon as there is something to take, or an error."""
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            self.listener = None
            if not arrived.done():
                arrived.set_result(None)

        self.listener = wake
        return arrived


class StepProcessor(OutputProcessor):
    """vLLM's output processor with a short path for requests that have an `Inbox`.

    `stats` collects what is per request and per step; None leaves statistics to vLLM (all of them, or none).
    """

    stats: ServingStats | None = None
    _gathered: set[Inbox] | None = None

    def gather(self) -> None:
        """From now on what arrives is kept until `hand_out`: more is coming, and leaves together with it."""
        if self._gathered is None:
            self._gathered = set()

    def hand_out(self) -> None:
        """Wake the readers of what was gathered."""
        gathered, self._gathered = self._gathered, None
        for inbox in gathered or ():
            inbox.tell()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.waiting: dict[int, int] = {}  # by engine: how many requests waited after its last step
        self.cache_used: dict[int, float] = {}  # by engine: the share of its KV cache that was in use

    def add_request(
        self,
        request: EngineCoreRequest,
        prompt: str | None,
        parent_req: ParentRequest | None = None,
        request_index: int = 0,
        queue: "Inbox | None" = None,
    ) -> None:
        if not self.request_states:
            self.waiting.clear()  # those that waited have left, and an engine without work makes no step to say so
            self.cache_used.clear()
        super().add_request(request, prompt, parent_req, request_index, queue)
        if isinstance(queue, Inbox):
            state = self.request_states[request.request_id]
            read_prompts_end(state.detokenizer, request.prompt_token_ids)
            state.detokenizer = plain(state.detokenizer) or state.detokenizer
            queue.states.append(state)

    def process_outputs(
        self,
        engine_core_outputs: list[EngineCoreOutput],
        engine_core_timestamp: float | None = None,
        iteration_stats: IterationStats | None = None,
        weight_version: str | None = None,
    ) -> OutputProcessorOutput:
        stats = self.stats
        if stats is not None:
            iteration_stats = stats.step_begins()
        to_abort: list[str] = []
        others: list[EngineCoreOutput] = []
        tokens = 0
        for output in engine_core_outputs:
            state = self.request_states.get(output.request_id)
            if state is None:
                continue  # aborted meanwhile
            if not isinstance(state.queue, Inbox):
                others.append(output)
                continue
            if stats is None:
                self._update_stats_from_output(state, output, engine_core_timestamp, iteration_stats)
            elif state.is_prefilling or output.events is not None:
                stats.observe(output, engine_core_timestamp or 0.0, state, self.lora_states)
            else:
                tokens += len(output.new_token_ids)
            finish_reason = self._deliver(output, state)
            if finish_reason is not None:
                if stats is not None:
                    stats.settle(state, engine_core_timestamp or 0.0)
                self._end(output, state, finish_reason, iteration_stats)
                if not output.finished:
                    to_abort.append(output.request_id)  # a stop string, which the engine doesn't know of
        if stats is not None:
            stats.count(tokens)
        if others:
            rest = super().process_outputs(others, engine_core_timestamp, iteration_stats, weight_version)
            rest.reqs_to_abort.extend(to_abort)
            return rest
        return OutputProcessorOutput(request_outputs=[], reqs_to_abort=to_abort)

    def _deliver(self, output: EngineCoreOutput, state: RequestState) -> FinishReason | None:
        """Detokenizes, checks stop strings and fills the inbox. Returns why the choice has ended, if it has."""
        inbox, detokenizer = state.queue, state.detokenizer
        finish_reason, stop_reason = output.finish_reason, output.stop_reason
        token_ids = output.new_token_ids
        if state.is_prefilling:
            _begin(output, state, inbox)
        if isinstance(detokenizer, PlainDetokenizer):
            text = detokenizer.advance(token_ids, finish_reason == FinishReason.STOP)
        else:
            before = detokenizer.num_output_tokens()
            stop_string = detokenizer.update(token_ids, finish_reason == FinishReason.STOP)
            if stop_string is not None:
                finish_reason, stop_reason = FinishReason.STOP, stop_string
                self._trim_surplus_tokens(state, output, before)
            text = detokenizer.get_next_output_text(finish_reason is not None, delta=True)
        logprobs = None
        if output.new_logprobs is not None:
            logprobs = [_scores(output.new_logprobs, len(token_ids), 1 + inbox.alternatives)]
        gathered = self._gathered
        inbox.push((state.request_index, text, token_ids, finish_reason, stop_reason, logprobs), gathered is None)
        if gathered is not None:
            gathered.add(inbox)
        return finish_reason

    def _end(
        self, output: EngineCoreOutput, state: RequestState, reason: FinishReason, stats: IterationStats | None
    ) -> None:
        if state.parent_req is not None:
            state.parent_req.child_requests.discard(state.request_id)
        self._finish_request(state)
        self._update_stats_from_finished(state, reason, stats)
        if self.tracing_enabled and stats is not None:
            self.do_tracing(output, state, stats)


def _scores(found: LogprobsLists, tokens: int, columns: int) -> Scores:
    """Copies: the arrays lie in the engine's message, which has all requests in it and as many columns as any of them
    asked for."""
    return Scores(found.logprob_token_ids[:tokens, :columns].copy(), found.logprobs[:tokens, :columns].copy())


def _begin(output: EngineCoreOutput, state: RequestState, inbox: Inbox) -> None:
    state.is_prefilling = False
    if (began := inbox.began) is not None:
        inbox.began = None
        began()
    if output.prefill_stats is not None:
        state.num_cached_tokens = output.prefill_stats.num_cached_tokens
        if state.request_index == 0:
            # The other choices find this one's prompt in the cache; the client's prompt was computed once.
            inbox.cached = state.num_cached_tokens
    if output.new_prompt_logprobs_tensors is not None:
        found = output.new_prompt_logprobs_tensors
        inbox.prompt_scores = Scores(found.logprob_token_ids.numpy().copy(), found.logprobs.numpy().copy())

"""A running request on the embedded engine: pieces in, `Delta` out."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import NoReturn

from vllm.v1.engine import FinishReason as EngineFinish

from engine.base import Delta, FinishReason, Generation, TokenCounts
from engine.errors import GenerationFailed
from engine.failures import translate
from engine.parsing import ChatContext, ChoiceParser
from engine.tokens import TokenLogprobs
from engine.vllm_internals.core import Core
from engine.vllm_internals.outputs import Inbox, Piece, RawPiece, Scores

# As vLLM's server: JSON has no -inf, and a token that a constraint forbade has it.
_LOGPROB_MIN = -9999.0

_FINISH: dict[EngineFinish, FinishReason] = {
    EngineFinish.STOP: "stop",
    EngineFinish.LENGTH: "length",
    EngineFinish.REPETITION: "stop",
}


class EmbeddedGeneration(Generation):
    """See `engine.base.Generation`. One reader."""

    def __init__(
        self,
        core: Core,
        inbox: Inbox,
        prompt_token_ids: list[int],
        context: ChatContext | None = None,
        scores_prompt: bool = False,
    ) -> None:
        self._core = core
        self._inbox = inbox
        # The choices whose first delta has yet to bring the prompt's log probabilities.
        self._unscored = set(range(len(inbox.completion))) if scores_prompt else set()
        self._prompt_tokens = len(prompt_token_ids)
        self._context = context
        self._parsers = [ChoiceParser(context, prompt_token_ids) for _ in inbox.completion] if context else []
        self._ready: deque[Delta] = deque()
        self._closed = False

    @property
    def counts(self) -> TokenCounts:
        return TokenCounts(
            prompt=self._prompt_tokens,
            cached=self._inbox.cached,
            completion=sum(self._inbox.completion),
            reasoning=sum(map(self._reasoning, range(len(self._parsers)))),
        )

    def _reasoning(self, index: int) -> int:
        state = self._inbox.states[index] if index < len(self._inbox.states) else None
        return self._parsers[index].reasoning_tokens(state.detokenizer.output_token_ids) if state else 0

    def __aiter__(self) -> "EmbeddedGeneration":
        return self

    async def __anext__(self) -> Delta:
        ready, inbox = self._ready, self._inbox
        while not ready:
            if self._closed:
                raise StopAsyncIteration
            pieces = inbox.take()
            if pieces:
                self._convert(pieces)
            elif inbox.error is not None:
                await self._fail(inbox.error)
            elif inbox.unfinished:
                await inbox.news()
            else:
                self._closed = True
        return ready.popleft()

    async def forward(self, take: Callable[[Delta], bool]) -> None:
        """`take` is called by vLLM's output handler, token by token."""
        inbox = self._inbox
        if self._hand_over(take):
            await self._hand_over_all(take)
        if inbox.error is not None and not (self._ready or inbox.pieces or self._closed):
            await self._fail(inbox.error)

    async def _hand_over_all(self, take: Callable[[Delta], bool]) -> None:
        inbox = self._inbox
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def news() -> None:
            if ended.done():
                return  # its reader is being cancelled
            try:
                if not self._hand_over(take):
                    ended.set_result(None)
            except Exception as error:  # the reader's, not the output handler's
                ended.set_exception(error)

        inbox.listener = news
        try:
            await ended
        finally:
            inbox.listener = None

    def _hand_over(self, take: Callable[[Delta], bool]) -> bool:
        """What there is now goes to `take`. Returns whether it wants more and more may come."""
        if pieces := self._inbox.take():
            self._convert(pieces)
        while self._ready:
            if not take(self._ready.popleft()):
                return False
        return bool(self._inbox.unfinished) and self._inbox.error is None and not self._closed

    async def _fail(self, error: Exception) -> NoReturn:
        """vLLM's handler passes on whatever stopped it."""
        await self.aclose()
        raise translate(error)

    async def aclose(self) -> None:
        """There is no await in it, so it completes in a task that is being cancelled too."""
        if not self._closed:
            self._closed = True
            if self._inbox.unfinished:
                self._core.abort_soon(self._inbox)

    def _convert(self, pieces: list[RawPiece]) -> None:
        if len(pieces) == 1 and not self._parsers:
            self._emit(*pieces[0])
            return
        by_choice: dict[int, list[Piece]] = {}
        for piece in pieces:
            by_choice.setdefault(piece[0], []).append(Piece(*piece))
        for index in sorted(by_choice):
            if self._parsers:
                self._parse(by_choice[index])
            else:
                self._emit(*_merged(by_choice[index]))

    def _emit(
        self,
        choice: int,
        text: str,
        token_ids: list[int],
        finish_reason: EngineFinish | None,
        stop_reason: int | str | None,
        logprobs: list[Scores] | None,
    ) -> None:
        """A Delta for a piece of a choice without a parser."""
        scored = choice in self._unscored
        if not text and finish_reason is None and logprobs is None and not scored:
            return  # half a character, or held back for a stop string: nothing to tell yet
        delta = Delta(choice, text, self._inbox.completion[choice], self._inbox.cached)
        if scored:
            self._unscored.discard(choice)
            scores = self._inbox.prompt_scores
            delta.prompt_logprobs = _Logprobs([scores] if scores is not None else [])
        if finish_reason is not None:
            delta.finish_reason = self._finish(finish_reason)
            delta.stop_reason = stop_reason
        if logprobs is not None:
            delta.logprobs = _Logprobs(logprobs)
        self._ready.append(delta)

    def _parse(self, pieces: list[Piece]) -> None:
        """One Delta for the pieces of one choice; a parser that streams must see them one by one."""
        last, parser = _merged(pieces), self._parsers[pieces[0].choice]
        if self._inbox.streams:
            parsed = parser.feed(pieces[0].text, pieces[0].token_ids, pieces[0].finish_reason is not None)
            for piece in pieces[1:]:
                more = parser.feed(piece.text, piece.token_ids, piece.finish_reason is not None)
                parsed.text += more.text
                parsed.reasoning = (parsed.reasoning or "") + (more.reasoning or "") or None
                parsed.tool_calls += more.tool_calls
        else:
            parsed = parser.whole(last.text, last.token_ids)
        ended = last.finish_reason is not None
        if not (parsed.text or parsed.reasoning or parsed.tool_calls or ended or last.logprobs is not None):
            return
        finish = self._finish(last.finish_reason) if last.finish_reason is not None else None
        if finish == "stop" and parser.made_calls and self._context is not None and not self._context.names_tool:
            finish = "tool_calls"  # OpenAI says "stop" where the request named the tool; so does vLLM
        self._ready.append(
            Delta(
                last.choice,
                parsed.text,
                self._inbox.completion[last.choice],
                self._inbox.cached,
                reasoning_tokens=self._reasoning(last.choice) if ended else 0,
                finish_reason=finish,
                stop_reason=last.stop_reason,
                reasoning=parsed.reasoning,
                tool_calls=tuple(parsed.tool_calls),
                logprobs=None if last.logprobs is None else _Logprobs(last.logprobs),
            )
        )

    def _finish(self, reason: EngineFinish) -> FinishReason:
        known = _FINISH.get(reason)
        if known is None:
            self._closed = True
            raise GenerationFailed("The engine gave up on this request; the same request may work when sent again.")
        return known


class _Logprobs(Collection[TokenLogprobs]):
    """The log probabilities of a delta. They stay arrays until they are read, since a slow reader's pile up."""

    __slots__ = ("_scores",)

    def __init__(self, scores: list[Scores]) -> None:
        self._scores = scores

    def __len__(self) -> int:
        return sum(len(scores.ids) for scores in self._scores)

    def __contains__(self, row: object) -> bool:
        return any(row == own for own in self)

    def __iter__(self) -> Iterator[TokenLogprobs]:
        for scores in self._scores:
            for ids, logprobs in zip(scores.ids.tolist(), scores.logprobs.tolist(), strict=True):
                if not min(logprobs) >= _LOGPROB_MIN:  # NaN isn't, either
                    logprobs = [value if value >= _LOGPROB_MIN else _LOGPROB_MIN for value in logprobs]
                yield TokenLogprobs(ids, logprobs)


def _merged(pieces: list[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    last = pieces[-1]
    return Piece(
        last.choice,
        "".join(piece.text for piece in pieces),
        [token for piece in pieces for token in piece.token_ids],
        last.finish_reason,
        last.stop_reason,
        None if pieces[0].logprobs is None else [row for piece in pieces for row in piece.logprobs or ()],
    )

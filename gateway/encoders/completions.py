"""The answers of `POST /v1/completions`: one document, or a stream of chunks."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from json.encoder import encode_basestring as quote

from engine.base import Delta, FinishReason
from engine.event_text import event_bytes
from engine.tokens import TokenLogprobs
from gateway.encoders.chunks import DONE, chunk_head, chunk_tail, usage_tail, with_logprobs
from gateway.encoders.token_texts import pieces, shares
from gateway.encoders.usage import usage_fields
from gateway.models.token_json import ROWS_AT_ONCE, TokenJSON
from gateway.protocol.completions import CompletionBody
from gateway.request.metered_generation import Metered
from gateway.schemas import openai as answers


@dataclass(slots=True)
class Logprobs:
    """OpenAI's four parallel lists, written. `text_offset` counts characters from the start of the choice's text."""

    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[str] = field(default_factory=list)
    top_logprobs: list[str] = field(default_factory=list)
    text_offset: list[str] = field(default_factory=list)

    def add(self, written: TokenJSON, text: str, rows: Collection[TokenLogprobs], offset: int) -> None:
        for row, share in zip(rows, shares(text, written.tokens(rows)), strict=True):
            self._append(written.completion(row), offset)
            offset += len(share)

    def _append(self, row: tuple[str, str, str], offset: int) -> None:
        token, logprob, top = row
        self.tokens.append(token)
        self.token_logprobs.append(logprob)
        self.top_logprobs.append(top)
        self.text_offset.append(str(offset))

    @classmethod
    async def of_prompt(
        cls, written: TokenJSON, text: str, ids: Sequence[int], rows: Iterable[TokenLogprobs]
    ) -> AsyncIterator[tuple[str, "Logprobs"]]:
        """The tokens of an echoed prompt with their text, some hundred at a time: others get their turn in between."""
        lines = chain(
            (written.first_of_completion(token_id) for token_id in ids[:1]), (written.completion(row) for row in rows)
        )
        told = zip(lines, pieces(text, map(written.token, ids)), strict=True)
        offset = 0
        while some := list(islice(told, ROWS_AT_ONCE)):
            part, start = cls(), offset
            for row, share in some:
                part._append(row, offset)
                offset += len(share)
            yield text[start:offset], part
            await asyncio.sleep(0)

    def extend(self, other: "Logprobs") -> None:
        self.tokens += other.tokens
        self.token_logprobs += other.token_logprobs
        self.top_logprobs += other.top_logprobs
        self.text_offset += other.text_offset

    def json(self) -> str:
        return (
            f'{{"text_offset":[{",".join(self.text_offset)}],"token_logprobs":[{",".join(self.token_logprobs)}],'
            f'"tokens":[{",".join(self.tokens)}],"top_logprobs":[{",".join(self.top_logprobs)}]}}'
        )


@dataclass(slots=True)
class Choice:
    """One choice, put together from its deltas. It starts with the prompt where that is echoed."""

    text: str
    logprobs: Logprobs = field(default_factory=Logprobs)
    finish_reason: FinishReason = "error"  # until it has ended

    def add(self, delta: Delta, written: TokenJSON) -> None:
        if delta.logprobs is not None:
            self.logprobs.add(written, delta.text, delta.logprobs, len(self.text))
        self.text += delta.text
        self.finish_reason = delta.finish_reason or self.finish_reason

    def fields(self, index: int) -> answers.CompletionChoice:
        """Without log probabilities, whose place is at the end."""
        return {"index": index, "text": self.text, "finish_reason": self.finish_reason, "logprobs": None}


async def completion(metered: Metered, body: CompletionBody) -> answers.Completion | bytes:
    """The whole answer as one document; with log probabilities, as its JSON. Reads all deltas.

    Choices are numbered prompt by prompt, as OpenAI does.
    """
    choices = [Choice(text) for text in _beginnings(metered, body)]
    async for delta in metered:
        choice = choices[delta.index]
        if delta.prompt_logprobs is not None:
            async for _, part in _prompt_logprobs(metered, delta, choice.text):
                choice.logprobs.extend(part)
        choice.add(delta, metered.job.served.tokens)
    answer: answers.Completion = {
        "id": metered.job.request_id,
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model,
        "service_tier": metered.job.tier.value,
        "choices": [choice.fields(index) for index, choice in enumerate(choices)],
        "usage": usage_fields(metered.counts, metered.cost),
    }
    return answer if body.logprobs is None else with_logprobs(answer, [choice.logprobs.json() for choice in choices])


class CompletionChunks:
    """The answer as server-sent events, one for each delta, then `[DONE]`. The echo comes with the first of a choice.

    As on the chat route, what never changes is built once.
    """

    def __init__(self, metered: Metered, body: CompletionBody) -> None:
        self._metered = metered
        self._body = body
        self._head = chunk_head("text_completion", metered, body.model)
        self._tail = chunk_tail(body.include_usage)
        self._beginnings = _beginnings(metered, body)
        self._tokens = metered.job.served.tokens
        self._offsets = [0] * len(self._beginnings)

    async def with_prompts(self) -> AsyncIterator[bytes]:
        """All events, where each choice begins with the log probabilities of its prompt's tokens."""
        async for delta in self._metered:
            if delta.prompt_logprobs is not None:
                text, self._beginnings[delta.index] = self._beginnings[delta.index], ""
                async for piece, logprobs in _prompt_logprobs(self._metered, delta, text):
                    fields = f'{{"index":{delta.index},"text":{quote(piece)},"logprobs":{logprobs.json()},'
                    yield event_bytes(f'{self._head}{fields}"finish_reason":null}}]{self._tail}')
                self._offsets[delta.index] = len(text)
            yield self.feed(delta)
        yield self.end()

    def feed(self, delta: Delta) -> bytes:
        metered, body, index = self._metered, self._body, delta.index
        text = self._beginnings[index] + delta.text
        self._beginnings[index] = ""
        ended = delta.finish_reason is not None
        if not (text or delta.logprobs or ended):
            return b""
        logprobs = "null" if body.logprobs is None else self._logprobs(delta)
        self._offsets[index] += len(delta.text)
        reason = "null" if delta.finish_reason is None else quote(delta.finish_reason)
        rides = body.continuous_usage or (ended and metered.finished and body.include_usage is None)
        end = usage_tail(metered) if rides else self._tail
        fields = f'{{"index":{index},"text":{quote(text)},"logprobs":{logprobs},"finish_reason":{reason}}}'
        chunk = f"{self._head}{fields}]{end}"
        if ended and metered.finished and body.include_usage:
            chunk += f"{self._head}]{usage_tail(metered)}"
        return chunk.encode() if chunk.isascii() else event_bytes(chunk)

    def _logprobs(self, delta: Delta) -> str:
        logprobs = Logprobs()
        logprobs.add(self._tokens, delta.text, delta.logprobs or (), self._offsets[delta.index])
        return logprobs.json()

    def end(self) -> bytes:
        return DONE


def _beginnings(metered: Metered, body: CompletionBody) -> list[str]:
    """What each choice starts with: its prompt, or nothing."""
    if not body.echo:
        return [""] * metered.job.choices
    renderer = metered.job.served.renderer
    return [text for part in metered.job.parts for text in [renderer.prompt_text(part.prompt)] * body.n]


def _prompt_logprobs(metered: Metered, delta: Delta, text: str) -> AsyncIterator[tuple[str, Logprobs]]:
    """Of the prompt that a choice begins with, as `Logprobs.of_prompt` gives them."""
    job = metered.job
    part = job.parts[delta.index // job.parts[0].sampling.n]
    ids = job.served.renderer.prompt_ids(part.prompt)
    return Logprobs.of_prompt(job.served.tokens, text, ids, delta.prompt_logprobs or ())

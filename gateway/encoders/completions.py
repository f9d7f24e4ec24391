"""The answers of `POST /v1/completions`: one document, or a stream of chunks."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from json.encoder import encode_basestring as quote

from engine.base import Delta, FinishReason
from engine.event_text import event_bytes
from engine.tokens import TokenLogprobs
from gateway.encoders.chunks import DONE, chunk_head, chunk_tail, usage_tail, with_logprobs
from gateway.encoders.token_texts import shares
from gateway.encoders.usage import usage_fields
from gateway.models.token_json import TokenJSON
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
            token, logprob, top = written.completion(row)
            self.tokens.append(token)
            self.token_logprobs.append(logprob)
            self.top_logprobs.append(top)
            self.text_offset.append(str(offset))
            offset += len(share)

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
        choices[delta.index].add(delta, metered.job.served.tokens)
    answer: answers.Completion = {
        "id": metered.job.request_id,
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model,
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

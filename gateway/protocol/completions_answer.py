"""The answers of `POST /v1/completions`: one document, or a stream of chunks."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring as quote

from engine.base import Delta, FinishReason, TokenLogprob
from gateway.metered import Metered
from gateway.protocol.chunks import DONE, chunk_head, chunk_tail, usage_tail
from gateway.protocol.completions import CompletionBody
from gateway.protocol.token_texts import shares
from gateway.protocol.usage import usage_fields


@dataclass(slots=True)
class Logprobs:
    """OpenAI's four parallel lists. `text_offset` counts characters from the start of the choice's text."""

    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[str, float]] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)

    def add(self, text: str, logprobs: Sequence[TokenLogprob], offset: int) -> None:
        for token, share in zip(logprobs, shares(text, logprobs), strict=True):
            self.tokens.append(token.text)
            self.token_logprobs.append(token.logprob)
            # "The API will always return the logprob of the sampled token" (OpenAI, API reference, `logprobs`).
            self.top_logprobs.append({one.text: one.logprob for one in (*token.top, token)})
            self.text_offset.append(offset)
            offset += len(share)

    def fields(self) -> dict[str, object]:
        return {
            "text_offset": self.text_offset,
            "token_logprobs": self.token_logprobs,
            "tokens": self.tokens,
            "top_logprobs": self.top_logprobs,
        }


@dataclass(slots=True)
class Choice:
    """One choice, put together from its deltas. It starts with the prompt where that is echoed."""

    text: str
    logprobs: Logprobs = field(default_factory=Logprobs)
    finish_reason: FinishReason | None = None

    def add(self, delta: Delta) -> None:
        self.logprobs.add(delta.text, delta.logprobs or (), len(self.text))
        self.text += delta.text
        self.finish_reason = delta.finish_reason or self.finish_reason

    def fields(self, index: int, with_logprobs: bool) -> dict[str, object]:
        return {
            "index": index,
            "text": self.text,
            "logprobs": self.logprobs.fields() if with_logprobs else None,
            "finish_reason": self.finish_reason,
        }


async def completion(metered: Metered, body: CompletionBody) -> dict[str, object]:
    """The whole answer as one document. Reads all deltas. Choices are numbered prompt by prompt, as OpenAI does."""
    choices = [Choice(text) for text in _beginnings(metered, body)]
    async for delta in metered:
        choices[delta.index].add(delta)
    return {
        "id": metered.job.request_id,
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model,
        "choices": [choice.fields(index, body.logprobs is not None) for index, choice in enumerate(choices)],
        "usage": usage_fields(metered.counts, metered.cost),
    }


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
        self._offsets = [0] * len(self._beginnings)

    def feed(self, delta: Delta) -> bytes:
        metered, body, index = self._metered, self._body, delta.index
        text = self._beginnings[index] + delta.text
        self._beginnings[index] = ""
        ended = delta.finish_reason is not None
        if not (text or delta.logprobs or ended):
            return b""
        logprobs = "null" if body.logprobs is None else _logprobs(delta, self._offsets[index])
        self._offsets[index] += len(delta.text)
        reason = "null" if delta.finish_reason is None else quote(delta.finish_reason)
        rides = body.continuous_usage or (ended and metered.finished and body.include_usage is None)
        end = usage_tail(metered) if rides else self._tail
        fields = f'{{"index":{index},"text":{quote(text)},"logprobs":{logprobs},"finish_reason":{reason}}}'
        chunk = f"{self._head}{fields}]{end}"
        if ended and metered.finished and body.include_usage:
            chunk += f"{self._head}]{usage_tail(metered)}"
        return chunk.encode()

    def end(self) -> bytes:
        return DONE


def _beginnings(metered: Metered, body: CompletionBody) -> list[str]:
    """What each choice starts with: its prompt, or nothing."""
    if not body.echo:
        return [""] * metered.job.choices
    renderer = metered.job.served.renderer
    return [text for part in metered.job.parts for text in [renderer.prompt_text(part.prompt)] * body.n]


def _logprobs(delta: Delta, offset: int) -> str:
    logprobs = Logprobs()
    logprobs.add(delta.text, delta.logprobs or (), offset)
    return json.dumps(logprobs.fields(), ensure_ascii=False)

"""The answers of `POST /v1/inference/{model}`: one document, a stream of tokens, or what a webhook gets."""

import json
import time
from collections.abc import Sequence
from json.encoder import encode_basestring as quote

from engine.base import Delta, FinishReason, TokenCounts
from engine.event_text import event_bytes
from engine.tokens import Token
from gateway.encoders.token_texts import shares
from gateway.request.jobs import Job
from gateway.request.metered_generation import Metered
from gateway.schemas import openai as answers
from pricing.money import Picodollars, usd_number

# Stands for the token of an event that has none: the end came without one.
NO_TOKEN = Token(0, "", b"", special=True)


async def native_result(metered: Metered) -> answers.Inference:
    """The whole answer. Reads all deltas."""
    texts = [""] * metered.job.choices
    async for delta in metered:
        texts[delta.index] += delta.text
    return result_fields(
        metered.job.request_id,
        "succeeded",
        metered.counts,
        metered.cost,
        texts=texts,
        runtime_ms=_runtime_ms(metered.job),
    )


def queued(job: Job) -> answers.Inference:
    """The answer to a request with a webhook: its result comes there."""
    return result_fields(job.request_id, "queued", TokenCounts(job.prompt_tokens), Picodollars(0))


def failed(
    request_id: str, message: str, code: str, counts: TokenCounts, cost: Picodollars, runtime_ms: int = 0
) -> answers.FailedInference:
    """What a webhook gets instead of a result. `cost` is what was charged: nothing, unless its process died."""
    fields = result_fields(request_id, "failed", counts, cost, runtime_ms=runtime_ms)
    return {**fields, "error": {"message": message, "code": code}, "detail": message}


def result_fields(
    request_id: str,
    status: answers.InferenceStatusName,
    counts: TokenCounts,
    cost: Picodollars,
    *,
    texts: Sequence[str] = (),
    runtime_ms: int = 0,
) -> answers.Inference:
    """The page's shape. `cost` is in US dollars; `num_tokens` are those generated, over all responses."""
    return {
        "request_id": request_id,
        "inference_status": {
            "status": status,
            "runtime_ms": runtime_ms,
            "cost": usd_number(cost),
            "tokens_input": counts.prompt,
            "tokens_generated": counts.completion,
        },
        "results": [{"generated_text": text} for text in texts],
        "num_tokens": counts.completion,
        "num_input_tokens": counts.prompt,
    }


class NativeEvents:
    """An event for each token; the last one holds the whole text and the details.

    The events' texts joined are the whole text: a token that ends the answer is `special` and adds none.
    """

    def __init__(self, metered: Metered) -> None:
        self._metered = metered
        self._vocabulary = metered.job.served.tokens
        self._texts: list[str] = []

    def feed(self, delta: Delta) -> bytes:
        self._texts.append(delta.text)
        end = None
        if delta.finish_reason is not None:
            details = _details(self._metered, delta.finish_reason)
            end = f'"generated_text": {quote("".join(self._texts))}, "details": {details}'
        rows = delta.logprobs or ()
        tokens = self._vocabulary.tokens(rows)
        logprobs = [row.logprobs[0] for row in rows]
        if end and not tokens:
            tokens, logprobs = [NO_TOKEN], [0.0]
        return event_bytes(_events(tokens, logprobs, shares(delta.text, tokens), end))

    def end(self) -> bytes:
        return b""


def _events(tokens: Sequence[Token], logprobs: Sequence[float], texts: Sequence[str], end: str | None) -> str:
    going_on = '"generated_text": null, "details": null'
    last = len(tokens) - 1
    return "".join(
        f'data: {{"token": {_token(token, logprob, text)}, {end if end and index == last else going_on}}}\n\n'
        for index, (token, logprob, text) in enumerate(zip(tokens, logprobs, texts, strict=True))
    )


def _token(token: Token, logprob: float, text: str) -> str:
    # Text that was held back may come out with the token that ends the answer; clients skip what is special.
    special = "true" if token.special and not text else "false"
    return f'{{"id": {token.id}, "text": {quote(text)}, "logprob": {logprob:.9g}, "special": {special}}}'


def _details(metered: Metered, finish_reason: FinishReason) -> str:
    counts = metered.counts
    details: answers.InferenceDetails = {
        "finish_reason": finish_reason,
        "generated_tokens": counts.completion,
        "input_tokens": counts.prompt,
        "cost": usd_number(metered.cost),
        "runtime_ms": _runtime_ms(metered.job),
        "request_id": metered.job.request_id,
    }
    return json.dumps(details)


def _runtime_ms(job: Job) -> int:
    return round((time.perf_counter() - job.arrived) * 1000)

"""The answers of `POST /v1/chat/completions`: one document, or a stream of chunks."""

import json
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from json.encoder import encode_basestring as quote

from engine.base import Delta, FinishReason
from engine.event_text import event_bytes
from engine.tokens import TokenLogprobs
from gateway.encoders.chat_calls import Call, StreamedCalls
from gateway.encoders.chunks import DONE, chunk_head, chunk_tail, compact, usage_tail, with_logprobs
from gateway.encoders.usage import usage_fields
from gateway.protocol.chat import ChatBody
from gateway.request.metered_generation import Metered
from gateway.schemas import openai as answers


@dataclass(slots=True)
class Choice:
    """One choice of an answer, put together from its deltas."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, Call] = field(default_factory=dict)
    logprobs: list[Collection[TokenLogprobs]] = field(default_factory=list)
    finish_reason: FinishReason = "error"  # until it has ended

    def add(self, delta: Delta) -> None:
        self.text.append(delta.text)
        if delta.reasoning:
            self.reasoning.append(delta.reasoning)
        for call in delta.tool_calls:
            self.calls.setdefault(call.index, Call()).add(call)
        if delta.logprobs is not None:
            self.logprobs.append(delta.logprobs)
        self.finish_reason = delta.finish_reason or self.finish_reason

    def fields(self, index: int, body: ChatBody) -> answers.ChatChoice:
        """Without log probabilities, whose place is at the end."""
        return {"index": index, "message": self.message(body), "finish_reason": self.finish_reason, "logprobs": None}

    def message(self, body: ChatBody) -> answers.ChatMessage:
        text = "".join(self.text)
        # As OpenAI: the content of a message that only calls functions is null.
        message: answers.ChatMessage = {"role": "assistant", "content": text or (None if self.calls else "")}
        if self.reasoning and body.include_reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.calls:
            message["tool_calls"] = [call.fields(body.customs) for _, call in sorted(self.calls.items())]
        return message


async def chat_completion(metered: Metered, body: ChatBody) -> answers.ChatCompletion | bytes:
    """The whole answer as one document; with log probabilities, as its JSON. Reads all deltas."""
    choices = [Choice() for _ in range(body.n)]
    async for delta in metered:
        choices[delta.index].add(delta)
    answer: answers.ChatCompletion = {
        "id": metered.job.request_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.model,
        "service_tier": metered.job.tier.value,
        "choices": [choice.fields(index, body) for index, choice in enumerate(choices)],
        "usage": usage_fields(metered.counts, metered.cost),
    }
    if not body.logprobs:
        return answer
    tokens = metered.job.served.tokens
    return with_logprobs(answer, [f'{{"content":[{await tokens.whole_chat(choice.logprobs)}]}}' for choice in choices])


class ChatChunks:
    """The answer as server-sent events, one for each delta, then `[DONE]`.

    Most of a chunk never changes, so it is built once: a plain token costs one string and no JSON document. The role
    comes with the first chunk only: OpenAI's SDK joins repeated strings, to "assistantassistant".
    """

    def __init__(self, metered: Metered, body: ChatBody) -> None:
        self._metered = metered
        self._body = body
        self._head = chunk_head("chat.completion.chunk", metered, body.model)
        self._choice = f'{self._head}{{"index":'
        self._started = [False] * body.n
        self._tail = chunk_tail(body.include_usage)
        self._plain = not (body.continuous_usage or body.logprobs)
        self._tokens = metered.job.served.tokens
        self._calls = StreamedCalls(body.customs)

    def feed(self, delta: Delta) -> bytes:
        index, text = delta.index, delta.text
        further = self._started[index] and delta.finish_reason is None
        if further and self._plain and text and not (delta.tool_calls or delta.reasoning):
            chunk = f'{self._choice}{index},"delta":{{"content":{quote(text)}}},"finish_reason":null}}]{self._tail}'
        else:
            chunk = self._chunk(delta)
        return chunk.encode() if chunk.isascii() else event_bytes(chunk)

    def _chunk(self, delta: Delta) -> str:
        """With all that a delta can have."""
        metered, body = self._metered, self._body
        head = f"{self._choice}{delta.index},"
        end = usage_tail(metered) if body.continuous_usage else self._tail
        role = "" if self._started[delta.index] else '"role":"assistant",'
        self._started[delta.index] = True
        chunk = ""
        rows = delta.logprobs if body.logprobs else None
        reasoning = delta.reasoning if body.include_reasoning else None
        if delta.text or role or rows or delta.tool_calls or reasoning:
            fields = f'{role}"content":{quote(delta.text)}'
            if delta.tool_calls or reasoning:
                fields = self._rich_fields(delta, reasoning, role)
            logprobs = f',"logprobs":{{"content":[{self._tokens.chat(rows or ())}]}}' if body.logprobs else ""
            chunk = f'{head}"delta":{{{fields}}}{logprobs},"finish_reason":null}}]{end}'
        if delta.finish_reason is not None:
            if rest := self._calls.rest(delta.index):
                chunk += f'{head}"delta":{{"tool_calls":{compact(rest)}}},"finish_reason":null}}]{self._tail}'
            if metered.finished and body.include_usage is None:
                end = usage_tail(metered)
            chunk += f'{head}"delta":{{}},"finish_reason":{quote(delta.finish_reason)}}}]{end}'
            if metered.finished and body.include_usage:
                chunk += f"{self._head}]{usage_tail(metered)}"
        return chunk

    def end(self) -> bytes:
        return DONE

    def _rich_fields(self, delta: Delta, reasoning: str | None, role: str) -> str:
        fields: answers.ChatDelta = {}
        if delta.text:
            fields["content"] = delta.text
        elif role:
            fields["content"] = None
        if reasoning:
            fields["reasoning_content"] = reasoning
        if delta.tool_calls:
            fields["tool_calls"] = self._calls.deltas(delta.index, delta.tool_calls)
        return role + json.dumps(fields, ensure_ascii=False)[1:-1]

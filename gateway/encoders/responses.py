"""The answers of `POST /v1/responses`: one document, or a stream of events, each with its name and number."""

import time
from collections.abc import Sequence
from typing import Any, Literal

from engine.base import Delta, FinishReason
from engine.event_text import event_bytes
from gateway.encoders.chunks import compact
from gateway.encoders.response_items import OutputItems
from gateway.protocol.responses import ResponsesBody
from gateway.request.metered_generation import Metered
from pricing.money import usd_number

Status = Literal["in_progress", "completed", "incomplete"]


class Response:
    """The document around the output: what was asked for, as OpenAI repeats it, and how it stands."""

    def __init__(self, metered: Metered, body: ResponsesBody) -> None:
        self._metered = metered
        self._body = body
        self._created = int(time.time())

    def written(self, status: Status, output: Sequence[str]) -> str:
        """As JSON, of items as JSON."""
        return f'{compact(self._fields(status))[:-1]},"output":[{",".join(output)}]}}'

    def _fields(self, status: Status) -> dict[str, Any]:
        body, sampling = self._body, self._metered.job.parts[0].sampling
        return {
            "id": self._metered.job.request_id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": body.model,
            "usage": None if status == "in_progress" else self._usage(),
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_logprobs": body.top_logprobs or 0,
            "parallel_tool_calls": body.parallel_tool_calls,
            "reasoning": {"effort": body.reasoning.effort if body.reasoning is not None else None, "summary": None},
            "metadata": body.metadata or {},
            "previous_response_id": None,
            "background": False,
            "store": False,
            "truncation": "disabled",
            "service_tier": self._metered.job.tier.value,
            "user": body.user,
            **body.repeated(),
        }

    def _usage(self) -> dict[str, object]:
        counts = self._metered.counts
        return {
            "input_tokens": counts.prompt,
            "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": 0},
            "output_tokens": counts.completion,
            "output_tokens_details": {"reasoning_tokens": counts.reasoning},
            "total_tokens": counts.prompt + counts.completion,
            "estimated_cost": usd_number(self._metered.cost),
        }


async def response(metered: Metered, body: ResponsesBody, items: OutputItems) -> bytes:
    """The whole answer as one JSON document. Reads all deltas."""
    end: FinishReason | None = None
    async for delta in metered:
        await items.take(delta, metered.job.served.tokens.whole_chat)
        end = delta.finish_reason
    cut = end == "length"
    items.end(incomplete=cut)
    return Response(metered, body).written("incomplete" if cut else "completed", items.written).encode()


class ResponseEvents:
    """The answer as server-sent events, from `response.created` to `response.completed` or `response.incomplete`."""

    def __init__(self, metered: Metered, body: ResponsesBody, items: OutputItems) -> None:
        self._document = Response(metered, body)
        self._items = items
        self._begun = False
        self._cut = False

    def feed(self, delta: Delta) -> bytes:
        self._cut = delta.finish_reason == "length"
        if self._begun:
            return self._items.feed(delta)
        self._begun = True
        beginning = [self._event(name, "in_progress", ()) for name in ("created", "in_progress")]
        return b"".join([*beginning, self._items.feed(delta)])

    def end(self) -> bytes:
        ending = self._items.end(incomplete=self._cut)
        status: Status = "incomplete" if self._cut else "completed"
        return ending + self._event(status, status, self._items.written)

    def _event(self, name: str, status: Status, output: Sequence[str]) -> bytes:
        items = self._items
        number, items.number = items.number, items.number + 1
        name = f"response.{name}"
        document = self._document.written(status, output)
        return event_bytes(
            f'event: {name}\ndata: {{"type":"{name}","sequence_number":{number},"response":{document}}}\n\n'
        )

"""The answers of `POST /v1/responses`: one document, or a stream of events, each with its name and number."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from engine.base import FinishReason
from gateway.metered import Metered
from gateway.protocol.responses import ResponsesBody
from pricing.money import usd_number

if TYPE_CHECKING:
    from engine.responses_format import Items

Status = Literal["in_progress", "completed", "incomplete"]


class Response:
    """The document around the output: what was asked for, as OpenAI repeats it, and how it stands."""

    def __init__(self, metered: Metered, body: ResponsesBody) -> None:
        self._metered = metered
        self._body = body
        self._created = int(time.time())

    def fields(self, status: Status, output: Sequence[object]) -> dict[str, Any]:
        body, sampling = self._body, self._metered.job.parts[0].sampling
        choice = body.tool_choice or ("auto" if body.tools else "none")
        given = body.text.model_dump(by_alias=True, exclude_none=True) if body.text is not None else {}
        return {
            "id": self._metered.job.request_id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": body.model,
            "output": list(output),
            "usage": None if status == "in_progress" else self._usage(),
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_logprobs": body.top_logprobs or 0,
            "tools": [tool.model_dump() for tool in body.tools],
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "parallel_tool_calls": body.parallel_tool_calls,
            "text": {"format": {"type": "text"}} | given,
            "reasoning": {"effort": body.reasoning.effort if body.reasoning is not None else None, "summary": None},
            "metadata": body.metadata or {},
            "previous_response_id": None,
            "background": False,
            "store": False,
            "truncation": "disabled",
            "service_tier": "default",
            "user": body.user,
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


async def response(metered: Metered, body: ResponsesBody, items: "Items") -> dict[str, Any]:
    """The whole answer as one document. Reads all deltas."""
    end: FinishReason | None = None
    async for delta in metered:
        items.add(delta)
        end = delta.finish_reason
    cut = end == "length"
    return Response(metered, body).fields("incomplete" if cut else "completed", items.whole(incomplete=cut))


async def response_events(metered: Metered, body: ResponsesBody, items: "Items") -> AsyncIterator[bytes]:
    """The answer as server-sent events, from `response.created` to `response.completed` or `response.incomplete`."""
    document = Response(metered, body)
    for name in ("created", "in_progress"):
        yield _event(f"response.{name}", items, document.fields("in_progress", ()))
    end: FinishReason | None = None
    async for delta in metered:
        if events := items.feed(delta):
            yield events
        end = delta.finish_reason
    cut = end == "length"
    yield items.end(incomplete=cut)
    status: Status = "incomplete" if cut else "completed"
    yield _event(f"response.{status}", items, document.fields(status, items.streamed()))


def _event(name: str, items: "Items", document: dict[str, Any]) -> bytes:
    number, items.number = items.number, items.number + 1
    fields = {"type": name, "sequence_number": number, "response": document}
    return f"event: {name}\ndata: {json.dumps(fields, ensure_ascii=False)}\n\n".encode()

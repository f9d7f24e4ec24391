"""An error as a route's clients expect it: OpenAI's shape, or Anthropic's where Anthropic's clients call.

Status, message, code and headers are the same everywhere; only the body and the event differ. This is the one place
that knows which route has which.
"""

import json

from engine.event_text import event_bytes
from gateway.errors import GatewayError

ANTHROPIC_ROUTES = frozenset(
    f"{prefix}/v1/messages{rest}" for prefix in ("", "/anthropic") for rest in ("", "/count_tokens", "/batches")
) | {"/anthropic/v1/models"}
RESPONSES_ROUTES = frozenset({"/v1/responses", "/v1/openai/responses"})

# https://platform.claude.com/docs/en/api/errors
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


# Beside `type`, what Anthropic's SDKs act on: a tool runner that sent `thread` goes on without it, and only on this.
_DETAILS: dict[str | None, dict[str, object]] = {
    "thread": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
}


def error_body(error: GatewayError, route: str, request_id: str) -> dict[str, object]:
    """The document. Anthropic's has what ours has, and more: `type`, and types of its own."""
    if route not in ANTHROPIC_ROUTES:
        return error.body()
    kind = _ANTHROPIC_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    fields = {**error.described(), "type": kind}
    for fault in error.faults or (error,):
        if fault.code == "unsupported_parameter" and fault.param in _DETAILS:
            fields["details"] = _DETAILS[fault.param]
    return {"type": "error", "error": fields, "request_id": request_id, "detail": error.message}


def error_event(error: GatewayError, route: str, request_id: str, number: int) -> bytes:
    """What ends a stream that has begun. Where a stream's events have names, this one is called `error`; where they
    have numbers, it is the one with this `number`."""
    body = error_body(error, route, request_id)
    name = "event: error\n" if route in ANTHROPIC_ROUTES | RESPONSES_ROUTES else ""
    if route in RESPONSES_ROUTES:
        # OpenAI's event has the fields at its top; its SDKs raise for a field `error`.
        fields = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        body = {**fields, "sequence_number": number, **body}
    return event_bytes(f"{name}data: {json.dumps(body, ensure_ascii=False)}\n\n")


def ping_event(route: str) -> bytes:
    """What says that a stream goes on, and nothing else: a comment, or Anthropic's own event."""
    return b'event: ping\ndata: {"type": "ping"}\n\n' if route in ANTHROPIC_ROUTES else b": ping\n\n"

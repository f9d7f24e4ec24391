"""What all routes have in common in the document: errors, headers and who may call."""

from http import HTTPStatus
from typing import Any

Fields = dict[str, Any]

ERRORS: dict[int, str] = {
    400: "The body isn't JSON, the prompt doesn't fit the context, or a parameter can't be honoured.",
    401: "The key is missing or not valid.",
    402: "The account or the key hasn't enough money left for what the request may cost at most.",
    403: "The key may not use this model.",
    404: "There is no such path, model or thing for this key.",
    409: "It is there already, or the Idempotency-Key belongs to another request or one that still runs.",
    413: "The body is too large.",
    415: "The body isn't JSON, or is packed in another way than gzip.",
    422: "A parameter has a wrong type or value; `param` names it.",
    429: "A limit of the key is reached; `retry-after` says when to try again.",
    500: "The engine or the gateway failed. Only what was sent is charged.",
    501: "This needs a package that isn't installed.",
    503: "The engine or the ledger can't be reached now; `retry-after` says when to try again.",
}
OPEN_ERRORS = (500,)
KEYED_ERRORS = (401, 404, 500, 503)
BODY_ERRORS = (400, 413, 415, 422)
ADMITTED_ERRORS = (402, 403, 409, 429)

SECURITY_SCHEMES: Fields = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
SECURITY: list[Fields] = [{name: []} for name in SECURITY_SCHEMES]

IDEMPOTENCY_KEY: Fields = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same request, sent again with the same key, is charged once and gets the same answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}

_INTEGER: Fields = {"type": "integer", "minimum": 0}
_HEADERS: dict[str, Fields] = {
    "x-request-id": {
        "description": "The request's own, where it had a sane one; otherwise made here.",
        "required": True,
        "schema": {"type": "string"},
    },
    "openai-processing-ms": {
        "description": "Milliseconds until the answer began.",
        "required": True,
        "schema": _INTEGER,
    },
    "retry-after": {"description": "Seconds until another try makes sense.", "schema": _INTEGER},
    **{
        f"x-ratelimit-{what}-{kind}": {"description": text.format(kind=kind), "schema": schema}
        for what, text, schema in (
            ("limit", "How many {kind} the key may use in a minute.", _INTEGER),
            ("remaining", "How many {kind} are left now.", _INTEGER),
            ("reset", "When all {kind} are there again, such as 6m0s.", {"type": "string"}),
        )
        for kind in ("requests", "tokens")
    },
}
ALWAYS = ("x-request-id", "openai-processing-ms")
LIMITS = tuple(name for name in _HEADERS if name.startswith("x-ratelimit-"))


def headers(*names: str) -> Fields:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def components() -> Fields:
    """Headers, errors and security schemes; the schemas come from the routes."""
    return {"headers": _HEADERS, "responses": _responses(), "securitySchemes": SECURITY_SCHEMES}


def error_reference(status: int) -> Fields:
    return {"$ref": f"#/components/responses/{_name(status)}"}


def _responses() -> Fields:
    return {
        _name(status): {
            "description": text,
            "headers": headers(*ALWAYS, *(("retry-after",) if status in (409, 429, 503) else ())),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, text in ERRORS.items()
    }


def _name(status: int) -> str:
    return HTTPStatus(status).phrase.replace(" ", "").replace("-", "")

"""What a route says of itself. `documented` puts it on the handler, beside the code; the document collects it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, TypeVar

from gateway.models.model import Task
from gateway.protocol.body import Body

JSON = "application/json"
EVENTS = "text/event-stream"
FORM = "multipart/form-data"
LINES = "application/jsonl"

_ATTRIBUTE = "farebox_operation"


@dataclass(frozen=True, slots=True)
class Operation:
    """One route for the document.

    `body` is checked with the parameters of each model that does the `task` (None: of any), or as it is where it has no
    route of theirs. `query` holds the parameters of the query string as a body's fields. `answers` maps media types to
    the TypedDict of the document, or the TypedDicts of its events, or to None for plain text. `errors` are the statuses
    beyond those that any route has; `others` are answers with another status that aren't of the errors' shape.
    `form` holds the fields of a form (multipart/form-data) beside its `file`.
    `admitted` marks routes whose answers carry rate limits and that take an Idempotency-Key.
    """

    tag: str
    summary: str
    description: str = ""
    body: type[Body] | None = None
    form: type[Body] | None = None
    task: Task | None = "generate"
    query: type[Body] | None = None
    answers: Mapping[str, type[Any] | UnionType | None] = field(default_factory=dict)
    status: int = 200
    errors: tuple[int, ...] = ()
    others: Mapping[int, type[Any]] = field(default_factory=dict)
    admitted: bool = False


H = TypeVar("H", bound=Callable[..., object])


def documented(operation: Operation) -> Callable[[H], H]:
    """Marks a handler with its documentation."""

    def mark(handler: H) -> H:
        setattr(handler, _ATTRIBUTE, operation)
        return handler

    return mark


def operation_of(endpoint: object) -> Operation | None:
    """The operation of a route's endpoint, which may wrap its handler."""
    found = getattr(getattr(endpoint, "handler", endpoint), _ATTRIBUTE, None)
    return found if isinstance(found, Operation) else None

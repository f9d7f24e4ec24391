"""What the generating routes share."""

import secrets
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.body_checker import Check, Checked
from gateway.catalog import Task
from gateway.errors import InvalidRequest, ModelNotAllowed
from gateway.exchange import Exchange
from gateway.fleet import Served
from gateway.large_bodies import VALUES_INLINE, is_large
from gateway.parameters import Route
from gateway.protocol.checks import Body, named_model, parse_json, validate, with_ranges

B = TypeVar("B", bound=Body)
P = TypeVar("P")


async def read_prompt(
    exchange: Exchange, kind: type[B], route: Route, make: Callable[[B], P], task: Task = "generate"
) -> tuple[Served, B, P]:
    """The model that the body names, the valid body, and what `make` makes of it: what the prompt is made from.

    Of a large body the fields in its `PROMPT` are gone by then. Raises InvalidRequest, NotFound, ModelNotAllowed,
    Unavailable.
    """
    if is_large(exchange.body) and (checked := await _checked_apart(exchange, kind, route, make)) is not None:
        served, body = _valid(exchange, checked, kind, route, task)
        made: Any = checked.made  # what `make` made of it there
        return served, body, made
    values = parse_json(exchange.body)
    served = find_model(exchange, named_model(values), task)
    body = validate(kind, values, served.model.profile.route(route))
    return served, body, make(body)


async def read(
    exchange: Exchange, kind: type[B], route: Route, *, model: str | None = None, task: Task = "generate"
) -> tuple[Served, B]:
    """`read_prompt` for a body whose prompt is plain already. `model`: the path names it, not the body."""
    served = find_model(exchange, model, task) if model is not None else None
    if is_large(exchange.body) and (checked := await _checked_apart(exchange, kind, route, model=model)) is not None:
        return _valid(exchange, checked, kind, route, task)
    values = parse_json(exchange.body)
    served = served or find_model(exchange, named_model(values), task)
    return served, validate(kind, values, served.model.profile.route(route))


async def _checked_apart(
    exchange: Exchange, kind: type[B], route: Route, make: Callable[[B], P] | None = None, model: str | None = None
) -> Checked | None:
    """The body checked in another process, if it holds so much that it would hold up the event loop."""
    if await exchange.turn.begin(exchange.body) <= VALUES_INLINE:
        return None
    gateway = exchange.gateway
    profiles = {one.name: one.profile for one in gateway.catalog}
    job = Check(kind, exchange.body, route, profiles, gateway.settings.body_values_max, model, make)
    return await gateway.large_bodies.check(job)


def _valid(exchange: Exchange, checked: Checked, kind: type[B], route: Route, task: Task) -> tuple[Served, B]:
    if checked.model is None:
        raise checked.error or InvalidRequest("The body couldn't be read.")
    served = find_model(exchange, checked.model, task)
    if checked.error is not None:
        raise checked.error
    narrowed: Any = with_ranges(kind, served.model.profile.route(route))
    body: B = narrowed.model_construct(set(checked.fields_set), **checked.fields or {})
    return served, body


def find_model(exchange: Exchange, name: str, task: Task = "generate") -> Served:
    """The model on its engine, if this key may use it."""
    served = exchange.gateway.fleet.find(name)
    exchange.context.model = served.model.name
    if not exchange.key.allows(served.model.name):
        raise ModelNotAllowed(
            f'This key may not use the model "{served.model.name}". Ask for a key that may.', param="model"
        )
    if served.model.card.task != task:
        raise InvalidRequest(
            _wrong_task(exchange, served.model.name, task), code="unsupported_parameter", param="model"
        )
    return served


def _wrong_task(exchange: Exchange, name: str, task: Task) -> str:
    if task == "generate":
        return f'The model "{name}" makes embeddings and no text. Send it to /v1/embeddings.'
    able = [
        model.name
        for model in exchange.gateway.catalog
        if model.card.task == "embed" and exchange.key.allows(model.name)
    ]
    others = f"These can: {', '.join(able)}." if able else "No model of this gateway can."
    return f'The model "{name}" can\'t make embeddings. {others}'


def new_id(kind: str, mark: str = "-") -> str:
    """The id of an answer, which is also the request's name in the ledger: `chatcmpl-` and 128 random bits."""
    return f"{kind}{mark}{secrets.token_hex(16)}"

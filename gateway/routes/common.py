"""What the generating routes share."""

import secrets
from typing import TypeVar

from gateway.catalog import Task
from gateway.errors import InvalidParameter, InvalidRequest, ModelNotAllowed, show
from gateway.exchange import Exchange
from gateway.fleet import Served
from gateway.protocol.checks import Body, JSONObject, check, parse_json
from gateway.protocol.fields import ignored_header

B = TypeVar("B", bound=Body)


def read(exchange: Exchange, body: type[B], task: Task = "generate") -> tuple[Served, B]:
    """The model that the body names, and the body within the ranges of that model.

    Raises InvalidRequest, InvalidParameter, NotFound, ModelNotAllowed, Unavailable.
    """
    values = parse_json(exchange.body)
    served = served_model(exchange, values, task)
    return served, checked(exchange, body, values, served)


def checked(exchange: Exchange, body: type[B], values: JSONObject, served: Served) -> B:
    """The body within the model's ranges. What is ignored is named in a header of the answer and on the log line."""
    found, ignored = check(body, values, served.model.profile, exchange.gateway.settings.unknown_fields)
    if ignored:
        exchange.context.headers.append(ignored_header(ignored))
        exchange.context.fields["ignored"] = list(ignored)
    return found


def served_model(exchange: Exchange, values: JSONObject, task: Task = "generate") -> Served:
    """The model that the body names, if it does this. Raises InvalidRequest, NotFound, ModelNotAllowed, Unavailable."""
    name = values.get("model")
    if not isinstance(name, str):
        sent = show(name) if "model" in values else "none"
        raise InvalidParameter(f"`model` must be the name of a model; got {sent}.", param="model")
    return find_model(exchange, name, task)


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

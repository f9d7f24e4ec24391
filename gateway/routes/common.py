"""What the generating routes share."""

import secrets

from gateway.errors import InvalidParameter, ModelNotAllowed, show
from gateway.exchange import Exchange
from gateway.fleet import Served
from gateway.protocol.checks import JSONObject


def served_model(exchange: Exchange, values: JSONObject) -> Served:
    """The model that the body names. Raises InvalidParameter, NotFound, ModelNotAllowed, Unavailable."""
    name = values.get("model")
    if not isinstance(name, str):
        sent = show(name) if "model" in values else "none"
        raise InvalidParameter(f"`model` must be the name of a model; got {sent}.", param="model")
    return find_model(exchange, name)


def find_model(exchange: Exchange, name: str) -> Served:
    """The model on its engine, if this key may use it."""
    served = exchange.gateway.fleet.find(name)
    exchange.context.model = served.model.name
    if not exchange.key.allows(served.model.name):
        raise ModelNotAllowed(
            f'This key may not use the model "{served.model.name}". Ask for a key that may.', param="model"
        )
    return served


def new_id(kind: str, mark: str = "-") -> str:
    """The id of an answer, which is also the request's name in the ledger: `chatcmpl-` and 128 random bits."""
    return f"{kind}{mark}{secrets.token_hex(16)}"

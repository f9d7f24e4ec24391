"""`GET /v1/models` and `/v1/models/{id}`: what is served, for how much."""

from starlette.requests import Request
from starlette.responses import JSONResponse

from gateway.catalog import Model
from gateway.errors import NotFound
from gateway.state import Gateway
from pricing.keys import Key
from pricing.price import Price


async def list_models(request: Request) -> JSONResponse:
    """The models that the caller's key may use."""
    gateway: Gateway = request.app.state.gateway
    key: Key = request.scope["farebox.key"]
    data = [model_fields(model, gateway.started) for model in gateway.catalog if key.allows(model.name)]
    return JSONResponse({"object": "list", "data": data})


async def get_model(request: Request) -> JSONResponse:
    """One model; its id may hold slashes."""
    gateway: Gateway = request.app.state.gateway
    key: Key = request.scope["farebox.key"]
    name = request.path_params["model"]
    model = gateway.catalog.get(name)
    if model is None or not key.allows(name):
        raise NotFound(
            f'There is no model "{name[:200]}" for this key. GET /v1/models lists those that there are.',
            code="model_not_found",
            param="model",
        )
    return JSONResponse(model_fields(model, gateway.started))


def model_fields(model: Model, created: int) -> dict[str, object]:
    """OpenAI's model object, with DeepInfra's `metadata`. Prices in USD per million tokens."""
    card = model.card
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": model.name.partition("/")[0],
        "root": model.name,
        "parent": None,
        "metadata": {
            "description": card.description,
            "context_length": card.context_length,
            "max_tokens": card.default_max_tokens,
            "pricing": price_fields(model.price),
            "tags": card.tags,
        },
    }


def price_fields(price: Price) -> dict[str, float]:
    """A picodollar per token is a microdollar per million tokens."""
    return {
        "input_tokens": price.input / 10**6,
        "output_tokens": price.output / 10**6,
        "cache_read_tokens": price.cached_input / 10**6,
    }

"""What is served: `/v1/models` as OpenAI's clients read it, `/models/list` and `/models/{name}` as DeepInfra's do.

`/anthropic/v1/models` has Anthropic's shape, and so has `/v1/models` for a client that is Anthropic's.
"""

from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.errors import InvalidParameter, NotFound
from gateway.errors.wording import show
from gateway.models.model import Model
from gateway.protocol.checks import validate
from gateway.protocol.models import ModelsPage
from gateway.protocol.operation import JSON, Operation, documented
from gateway.routes.documents import documents_of
from gateway.schemas.anthropic import AnthropicError
from gateway.schemas.models import (
    AnthropicModel,
    AnthropicModelList,
    CatalogEntry,
    CatalogModel,
    ModelCard,
    ModelList,
    anthropic_model,
    catalog_entry,
    model_card,
)
from gateway.state import Gateway
from pricing.keys import Key

TAG = "Models"
ERRORS = dict.fromkeys((401, 404, 422, 500, 503), AnthropicError)
FOR_ANTHROPIC = "A client that sends `anthropic-version` gets Anthropic's shape, as from `/anthropic/v1/models`."


@documented(Operation(TAG, "The models that your key may use", FOR_ANTHROPIC, answers={JSON: ModelList}))
async def list_models(request: Request) -> JSONResponse:
    if _is_anthropics(request):
        return await list_anthropic_models(request)
    created = _gateway(request).started
    return JSONResponse({"object": "list", "data": [model_card(model, created) for model in _allowed(request)]})


@documented(
    Operation(
        TAG,
        "One model",
        f"The id may hold slashes, as they are or as %2F. {FOR_ANTHROPIC}",
        answers={JSON: ModelCard},
    )
)
async def get_model(request: Request) -> JSONResponse:
    if _is_anthropics(request):
        return await get_anthropic_model(request)
    return JSONResponse(model_card(_model(request), _gateway(request).started))


@documented(
    Operation(
        TAG,
        "The models that your key may use, in Anthropic's format",
        "`limit` models at a time: the first, those after `after_id`, or the last ones before `before_id`.",
        query=ModelsPage,
        answers={JSON: AnthropicModelList},
        others=ERRORS,
    )
)
async def list_anthropic_models(request: Request) -> JSONResponse:
    page = validate(ModelsPage, dict(request.query_params))
    models = _allowed(request)
    if page.before_id is not None:
        before = models[: _place(models, page.before_id, "before_id")]
        shown, has_more = before[-page.limit :], len(before) > page.limit
    else:
        after = models[_place(models, page.after_id, "after_id") + 1 :] if page.after_id is not None else models
        shown, has_more = after[: page.limit], len(after) > page.limit
    created = _gateway(request).started
    listed: AnthropicModelList = {
        "data": [anthropic_model(model, created) for model in shown],
        "has_more": has_more,
        "first_id": shown[0].name if shown else None,
        "last_id": shown[-1].name if shown else None,
    }
    return JSONResponse(listed)


@documented(
    Operation(
        TAG,
        "One model, in Anthropic's format",
        "The id may hold slashes, as they are or as %2F.",
        answers={JSON: AnthropicModel},
        others=ERRORS,
    )
)
async def get_anthropic_model(request: Request) -> JSONResponse:
    return JSONResponse(anthropic_model(_model(request), _gateway(request).started))


@documented(Operation(TAG, "The catalog, in DeepInfra's format", answers={JSON: list[CatalogEntry]}))
async def list_catalog(request: Request) -> JSONResponse:
    return JSONResponse([catalog_entry(model) for model in _allowed(request)])


@documented(
    Operation(
        TAG,
        "One model of the catalog, with the JSON Schemas of its routes",
        "The schemas are made from the ranges that the checks of this model use.",
        answers={JSON: CatalogModel},
    )
)
async def get_catalog_model(request: Request) -> Response:
    return Response(await run_in_threadpool(documents_of(request).model, _model(request)), media_type=JSON)


def _is_anthropics(request: Request) -> bool:
    return "anthropic-version" in request.headers


def _place(models: Sequence[Model], name: str, param: str) -> int:
    """Raises InvalidParameter."""
    for place, model in enumerate(models):
        if model.name == name:
            return place
    raise InvalidParameter(f"`{param}` must be the id of a model of the list; got {show(name)}.", param=param)


def _allowed(request: Request) -> list[Model]:
    key: Key = request.scope["farebox.key"]
    known = _gateway(request).catalog.visible_to(key.account_id)
    return [model for model in known if key.allows(model.root) and not model.card.over]


def _model(request: Request) -> Model:
    """The model of the path. Raises NotFound."""
    name: str = request.path_params["model"]
    found = next((model for model in _allowed(request) if model.name == name), None)
    if found is None:
        raise NotFound(
            f'There is no model "{name[:200]}" for this key. GET /v1/models lists those that there are.',
            code="model_not_found",
            param="model",
        )
    return found


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway

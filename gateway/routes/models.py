"""What is served: `/v1/models` as OpenAI's clients read it, `/models/list` and `/models/{name}` as DeepInfra's do."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.errors import NotFound
from gateway.models.catalog import Alias, Model
from gateway.protocol.operation import JSON, Operation, documented
from gateway.routes.documents import documents_of
from gateway.schemas.models import (
    CatalogEntry,
    CatalogModel,
    ModelCard,
    ModelList,
    catalog_entry,
    model_card,
)
from gateway.state import Gateway
from pricing.keys import Key

TAG = "Models"


@documented(Operation(TAG, "The models that your key may use", answers={JSON: ModelList}))
async def list_models(request: Request) -> JSONResponse:
    created = _gateway(request).started
    cards = [model_card(model, created, alias) for model, alias in _allowed(request)]
    return JSONResponse({"object": "list", "data": cards})


@documented(Operation(TAG, "One model", "The id may hold slashes, as they are or as %2F.", answers={JSON: ModelCard}))
async def get_model(request: Request) -> JSONResponse:
    model, alias = _model(request)
    return JSONResponse(model_card(model, _gateway(request).started, alias))


@documented(Operation(TAG, "The catalog, in DeepInfra's format", answers={JSON: list[CatalogEntry]}))
async def list_catalog(request: Request) -> JSONResponse:
    return JSONResponse([catalog_entry(model, alias) for model, alias in _allowed(request)])


@documented(
    Operation(
        TAG,
        "One model of the catalog, with the JSON Schemas of its routes",
        "The schemas are made from the ranges that the checks of this model use.",
        answers={JSON: CatalogModel},
    )
)
async def get_catalog_model(request: Request) -> Response:
    model, alias = _model(request)
    name = model.name if alias is None else alias.name
    return Response(await run_in_threadpool(documents_of(request).model, name), media_type=JSON)


Named = tuple[Model, Alias | None]


def _allowed(request: Request) -> list[Named]:
    """What the key may use, each name once, those whose time isn't over."""
    key: Key = request.scope["farebox.key"]
    catalog = _gateway(request).catalog
    found: list[Named] = []
    for model in catalog:
        if key.allows(model.name) and not model.card.over:
            found += [(model, None), *((model, alias) for alias in catalog.aliases_of(model) if not alias.over)]
    return found


def _model(request: Request) -> Named:
    """The model of the path. Raises NotFound."""
    name: str = request.path_params["model"]
    for model, alias in _allowed(request):
        if name == (model.name if alias is None else alias.name):
            return model, alias
    raise NotFound(
        f'There is no model "{name[:200]}" for this key. GET /v1/models lists those that there are.',
        code="model_not_found",
        param="model",
    )


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway

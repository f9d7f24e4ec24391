"""What is served: `/v1/models` as OpenAI's clients read it, `/models/list` and `/models/{name}` as DeepInfra's do."""

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.errors import NotFound
from gateway.models.model import Model
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
    return JSONResponse({"object": "list", "data": [model_card(model, created) for model in _allowed(request)]})


@documented(Operation(TAG, "One model", "The id may hold slashes, as they are or as %2F.", answers={JSON: ModelCard}))
async def get_model(request: Request) -> JSONResponse:
    return JSONResponse(model_card(_model(request), _gateway(request).started))


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


def _allowed(request: Request) -> list[Model]:
    key: Key = request.scope["farebox.key"]
    return [model for model in _gateway(request).catalog.visible_to(key.account_id) if key.allows(model.name)]


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

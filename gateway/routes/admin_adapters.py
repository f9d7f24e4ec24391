"""`/admin/adapters`: LoRA adapters that come and go while the gateway runs."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from gateway.errors import NotFound
from gateway.models.adapter_store import AdapterStore
from gateway.protocol import admin_adapters as protocol
from gateway.protocol.operation import JSON, Operation, documented
from gateway.routes.admin_common import TAG, actor_of, gateway_of, id_of, read_body_as
from gateway.schemas import admin as answers
from pricing.accounts import Accounts


@documented(
    Operation(
        TAG,
        "Serve a LoRA adapter",
        "It is tried on its base's engine first. The other workers and replicas serve it within a second or so; "
        "streams go on meanwhile.",
        body=protocol.NewAdapter,
        answers={JSON: answers.AdapterFields},
        status=201,
        errors=(404, 409, 503),
    )
)
async def add_adapter(request: Request) -> JSONResponse:
    body = await read_body_as(request, protocol.NewAdapter)
    gateway = gateway_of(request)
    if body.account_id is not None:
        await Accounts(gateway.database).get(body.account_id)
    added = await gateway.adapters.add(body.card(), body.account_id, actor=actor_of(request))
    return JSONResponse(protocol.adapter_fields(added), status_code=201)


@documented(Operation(TAG, "The LoRA adapters that were added", answers={JSON: answers.AdapterList}))
async def list_adapters(request: Request) -> JSONResponse:
    """In the order in which they were added. Those on model cards aren't among them."""
    found = await AdapterStore(gateway_of(request).database).ready()
    return JSONResponse({"object": "list", "data": [protocol.adapter_fields(added) for added in found]})


@documented(
    Operation(
        TAG,
        "Serve an adapter no more",
        "Requests that run go on to their end.",
        answers={JSON: answers.AdapterFields},
        errors=(404,),
    )
)
async def remove_adapter(request: Request) -> JSONResponse:
    removed = await gateway_of(request).adapters.remove(id_of(request), actor=actor_of(request))
    if removed is None:
        raise NotFound("There is no such adapter. GET /admin/adapters lists those that there are.")
    return JSONResponse(protocol.adapter_fields(removed))


def routes() -> list[BaseRoute]:
    """All of them."""
    return [
        Route("/admin/adapters", add_adapter, methods=["POST"]),
        Route("/admin/adapters", list_adapters),
        Route("/admin/adapters/{id:row}", remove_adapter, methods=["DELETE"]),
    ]

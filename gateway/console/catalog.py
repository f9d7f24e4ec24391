"""The catalog, the model pages and what belongs to them: open to all, unless the operator closes them."""

import json

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from gateway.console import examples, formats, model_pages
from gateway.console.visits import Visit
from gateway.errors import NotFound
from gateway.models.model import Model
from gateway.models.parameters import Parameter
from gateway.schemas.models import catalog_entry


async def catalog(visit: Visit) -> Response:
    models = [(model, catalog_entry(model)) for model in visible(visit)]
    tags = sorted({tag for model, _ in models for tag in model.card.tags})
    return visit.page("catalog.html", models=models, tags=tags, states=visit.gateway.fleet.states)


async def model(visit: Visit) -> Response:
    found = _model(visit)
    pages = visit.console.models
    state = visit.gateway.fleet.states[found.name]
    routes = pages.routes(found)
    route = pages.route(found, visit.query.get("route", "")) or routes[0]
    fields = await run_in_threadpool(pages.fields, found, route)  # the first time it takes a while
    chats = found.card.task == "generate"
    return visit.page(
        "model.html",
        model=found,
        entry=catalog_entry(found),
        state=state,
        routes=routes,
        route=route,
        fields=fields,
        examples=examples.examples(route, found, address(visit)),
        languages=examples.LANGUAGES,
        answer=examples.answer(route, found),
        address=address(visit),
        controls=_controls(found) if chats else [],
        tools=found.card.tool_call_parser is not None,
        chats=chats,
    )


async def schema(visit: Visit) -> Response:
    """One JSON Schema, laid out to be read."""
    found = _model(visit)
    route = visit.console.models.route(found, visit.request.path_params["route"])
    part = visit.request.path_params["part"]
    if route is None or part not in route.parts:
        raise NotFound("There is no such schema.")
    document = await run_in_threadpool(visit.console.models.schema, found, route, part)
    return Response(json.dumps(document, indent=2, ensure_ascii=False), media_type="application/json")


async def static(visit: Visit) -> Response:
    parameters = visit.request.path_params
    response = visit.console.assets.response(parameters["version"], parameters["name"], visit.request.headers)
    if response is None:
        raise NotFound("There is no such file.")
    return response


async def nowhere(visit: Visit) -> Response:
    """For every other path. Raises NotFound."""
    raise NotFound("There is no such page.")


def visible(visit: Visit) -> list[Model]:
    """The models that whoever is signed in may use; an operator sees all, others those of the cards."""
    if visit.session is None:
        return list(visit.gateway.catalog)
    return visit.session.principal.models(visit.gateway.catalog)


def address(visit: Visit) -> str:
    """Where this gateway is reached, as the browser has it: "http://127.0.0.1:8000"."""
    request = visit.request
    host = request.headers.get("host", "127.0.0.1:8000")
    return f"{request.scope['scheme']}://{host}{visit.console.root_path}"


def _model(visit: Visit) -> Model:
    name: str = visit.request.path_params["model"]
    found = next((model for model in visible(visit) if model.name == name), None)
    if found is None:
        raise NotFound(f'There is no model "{name[:200]}" here.', code="model_not_found")
    return found


def bounds_of(row: Parameter, name: str) -> str:
    """ "0 ≤ temperature ≤ 2"; "" for what has no bounds."""
    names = {"minimum": "minimum", "above": "exclusiveMinimum", "maximum": "maximum", "below": "exclusiveMaximum"}
    given = {said: getattr(row, own) for own, said in names.items()}
    return formats.bounds(name, {said: bound for said, bound in given.items() if bound is not None})


def _controls(model: Model) -> list[dict[str, object]]:
    """What the playground makes its controls from."""
    return [
        {
            "name": name,
            "kind": row.kind,
            "minimum": row.minimum if row.minimum is not None else row.above,
            "maximum": row.maximum if row.maximum is not None else row.below,
            "step": formats.step(row),
            "slides": row.kind == "number" and row.maximum is not None,
            "low": row.minimum if row.minimum is not None else formats.step(row),
            "range": bounds_of(row, name),
            "default": "" if row.default is None else formats.value(row.default),
            "description": row.description,
            "most": row.items_max,
        }
        for name, row in model_pages.controls(model)
    ]

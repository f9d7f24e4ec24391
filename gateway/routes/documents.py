"""`/openapi.json` and `/docs`: what this gateway serves, from the tables that do the checking. Open to all."""

from functools import cached_property

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from gateway.models.catalog import Catalog
from gateway.models.model import Model
from gateway.openapi import page
from gateway.openapi.common import Fields
from gateway.openapi.document import build
from gateway.protocol.operation import JSON, Operation, documented
from gateway.schemas.models import catalog_model
from gateway.schemas.openai import Root

TAG = "Operation"


class Documents:
    """The documents of one application; each is made when it is first asked for."""

    def __init__(self, routes: list[BaseRoute], catalog: Catalog, version: str, root_path: str) -> None:
        self._routes = routes
        self._catalog = catalog
        self._version = version
        self.root_path = root_path
        self._models: dict[str, bytes] = {}

    @cached_property
    def openapi(self) -> Fields:
        return build(self._routes, self._catalog, self._version, self.root_path)

    @cached_property
    def openapi_json(self) -> bytes:
        return page.to_json(self.openapi)

    def model(self, model: Model) -> bytes:
        """A model of the catalog with its schemas."""
        if model.name in self._catalog.added:
            return page.to_json(catalog_model(model))  # an adapter that was added comes and goes
        if model.name not in self._models:
            self._models[model.name] = page.to_json(catalog_model(model))
        return self._models[model.name]

    @cached_property
    def html(self) -> bytes:
        return page.render(self.openapi).encode()


@documented(Operation(TAG, "Where the documents are; for those who ask whether anybody is there", answers={JSON: Root}))
async def root(request: Request) -> Response:
    prefix = documents_of(request).root_path
    return JSONResponse(Root(name="Farebox", documentation=f"{prefix}/docs", openapi=f"{prefix}/openapi.json"))


@documented(Operation(TAG, "This document", answers={JSON: dict}))
async def openapi(request: Request) -> Response:
    # Making it takes most of a second; the streams go on meanwhile.
    content = await run_in_threadpool(lambda: documents_of(request).openapi_json)
    return Response(content, media_type=JSON)


@documented(Operation(TAG, "This document as a page", answers={"text/html": None}))
async def docs(request: Request) -> Response:
    headers = {"content-security-policy": page.CONTENT_SECURITY_POLICY}
    content = await run_in_threadpool(lambda: documents_of(request).html)
    return Response(content, media_type="text/html", headers=headers)


def documents_of(request: Request) -> Documents:
    documents: Documents = request.app.state.documents
    return documents

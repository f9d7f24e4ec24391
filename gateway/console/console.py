"""What the console consists of, and its routes as a list."""

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from gateway.console import accounts, batches, catalog, engines, keys, logs, overview, sign_in, usage
from gateway.console.assets import Assets
from gateway.console.model_pages import ModelPages
from gateway.console.playground import BySession
from gateway.console.rendering import Rendering
from gateway.console.sessions import Sessions
from gateway.console.visits import Access, Handler, Page
from gateway.routes import documents, openai
from gateway.routes.endpoint import Generating
from gateway.state import Gateway

PREFIX = "/console"


class Console:
    """What the pages of one application work with. `api` are the application's other routes."""

    def __init__(self, gateway: Gateway, api: Iterable[BaseRoute]) -> None:
        settings = gateway.settings
        self.gateway = gateway
        self.root_path = settings.root_path
        self.assets = Assets()
        self.rendering = Rendering(settings.root_path, self.assets.version)
        self.models = ModelPages(api)
        self.sessions = Sessions(
            gateway.database,
            gateway.keys,
            idle_ms=settings.console_idle_seconds * 1000,
            life_ms=settings.console_session_seconds * 1000,
        )


class FrontDoor:
    """`/`: for a browser the catalog, which it gets at once and without being sent elsewhere; for programs what it was.

    `handler` is what the OpenAPI document describes.
    """

    handler = staticmethod(documents.root)

    def __init__(self) -> None:
        self._page = Page(catalog.catalog, Access.CATALOG)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "text/html" in Headers(scope=scope).get("accept", ""):
            await self._page(scope, receive, send)
            return
        response = await documents.root(Request(scope, receive))
        response.headers["vary"] = "accept"
        await response(scope, receive, send)


def routes() -> list[BaseRoute]:
    """All of them."""
    return [
        _get("", catalog.catalog, Access.CATALOG),
        _get("/static/{version}/{name}", catalog.static, Access.OPEN),
        _get("/models/{model:path}", catalog.model, Access.CATALOG),
        _get("/schemas/{route}/{part}/{model:path}", catalog.schema, Access.CATALOG),
        _get("/sign-in", sign_in.form, Access.OPEN),
        _post("/sign-in", sign_in.sign_in, Access.OPEN),
        _post("/sign-out", sign_in.sign_out, Access.OPEN),
        Route(f"{PREFIX}/chat", BySession(Generating(openai.chat_completions)), methods=["POST"]),
        _get("/overview", overview.overview, Access.SIGNED_IN),
        _get("/usage", usage.usage, Access.SIGNED_IN),
        _get("/usage.csv", usage.usage_csv, Access.SIGNED_IN),
        _get("/requests", logs.requests, Access.SIGNED_IN),
        _get("/requests.csv", logs.requests_csv, Access.SIGNED_IN),
        _get("/batches", batches.list_batches, Access.SIGNED_IN),
        _post("/batches/{batch}/cancel", batches.cancel, Access.SIGNED_IN),
        _get("/key", keys.own, Access.SIGNED_IN),
        _get("/accounts", accounts.list_accounts, Access.OPERATOR),
        _post("/accounts", accounts.create, Access.OPERATOR),
        _get("/accounts/{id:row}", accounts.account, Access.OPERATOR),
        _post("/accounts/{id:row}/{action}", accounts.act, Access.OPERATOR),
        _get("/keys", keys.list_keys, Access.OPERATOR),
        _post("/keys", keys.create, Access.OPERATOR),
        _get("/keys/{id:row}", keys.key, Access.OPERATOR),
        _post("/keys/{id:row}/{action}", keys.act, Access.OPERATOR),
        _get("/engines", engines.engines, Access.OPERATOR),
        _get("/engines.json", engines.engines_json, Access.OPERATOR),
        _get("/webhooks", logs.webhooks, Access.OPERATOR),
        _get("/audit", logs.audit, Access.OPERATOR),
        _get("/{rest:path}", catalog.nowhere, Access.OPEN),
    ]


def _get(path: str, handler: Handler, access: Access) -> Route:
    return Route(f"{PREFIX}{path}", Page(handler, access), methods=["GET"])


def _post(path: str, handler: Handler, access: Access) -> Route:
    return Route(f"{PREFIX}{path}", Page(handler, access), methods=["POST"])

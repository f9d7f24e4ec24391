"""The ASGI application: dependencies in, routes and middleware as lists that can be read."""

from collections.abc import Mapping
from importlib.metadata import version

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors.responses import on_http_exception
from gateway.request.auth import AuthMiddleware
from gateway.request.context import ContextMiddleware
from gateway.request.edge import EdgeMiddleware
from gateway.routes import (
    admin,
    anthropic,
    documents,
    embeddings,
    health,
    models,
    native,
    openai,
    responses,
    scoring,
    tokens,
    usage,
)
from gateway.routes.endpoint import Generating
from gateway.settings import SettingsError
from gateway.state import Gateway

OPENAI_PREFIXES = ("/v1", "/v1/openai")
ANTHROPIC_PREFIXES = ("/v1", "/anthropic/v1")
# What a browser's script may read of an answer, beside what any script may.
EXPOSED_HEADERS = (
    "x-request-id",
    "openai-processing-ms",
    "retry-after",
    "x-should-retry",
    "deprecation",
    "sunset",
    *(f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")),
)


def create_app(gateway: Gateway) -> Starlette:
    """The application around its dependencies, which the caller opens and closes."""
    routes = _routes()
    settings = gateway.settings
    _check_root_path(settings.root_path, routes)
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(EdgeMiddleware, root_path=settings.root_path, trusted_proxies=settings.trusted_proxies),
            *_cors(settings.cors_origins),
            Middleware(ContextMiddleware, metrics=gateway.metrics, tracing=gateway.tracing, routes=_labels(routes)),
            Middleware(AuthMiddleware, keys=gateway.keys),
            Middleware(Shortcut, endpoints=_generating(routes)),
        ],
        exception_handlers={HTTPException: on_http_exception},
    )
    app.router.redirect_slashes = False
    app.state.gateway = gateway
    app.state.documents = documents.Documents(routes, gateway.catalog, version("farebox"), settings.root_path)
    return app


class Shortcut:
    """Past the router: what streams tokens goes straight to its endpoint.

    The router tries one route after the other, and with Starlette's handling of exceptions, which this gateway does
    itself, wraps `send` three more times around each token.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = scope["type"] == "http" and scope["method"] == "POST"
        endpoint = self._endpoints.get(scope["path"]) if known else None
        await (endpoint or self._app)(scope, receive, send)


def _generating(routes: list[BaseRoute]) -> dict[str, ASGIApp]:
    """By path, where it has no parameters."""
    return {
        route.path: route.app
        for route in routes
        if isinstance(route, Route) and isinstance(route.app, Generating) and not route.param_convertors
    }


def _routes() -> list[BaseRoute]:
    routes: list[BaseRoute] = [
        Route("/", documents.root),
        Route("/health", health.ready),
        Route("/health/live", health.live),
        Route("/health/ready", health.ready),
        Route("/metrics", health.metrics),
        Route("/openapi.json", documents.openapi),
        Route("/docs", documents.docs),
        Route("/models/list", models.list_catalog),
        Route("/models/{model:path}", models.get_catalog_model),
        Route("/v1/inference/{model:path}", Generating(native.infer), methods=["POST"]),
        Route("/v1/webhooks/secret", native.webhook_secret),
        Route("/v1/usage", usage.get_usage),
        Route("/v1/requests/{id}", usage.get_request),
        Route("/v1/me/rate_limit", usage.get_rate_limit),
        # vLLM's, which stand beside /v1 there.
        Route("/tokenize", Generating(tokens.tokenize), methods=["POST"]),
        Route("/detokenize", Generating(tokens.detokenize), methods=["POST"]),
        Route("/score", Generating(scoring.score), methods=["POST"]),
        Route("/rerank", Generating(scoring.rerank), methods=["POST"]),
        Route("/v2/rerank", Generating(scoring.rerank), methods=["POST"]),
        *admin.routes(),
    ]
    for prefix in OPENAI_PREFIXES:
        routes += [
            Route(f"{prefix}/chat/completions", Generating(openai.chat_completions), methods=["POST"]),
            Route(f"{prefix}/completions", Generating(openai.completions), methods=["POST"]),
            Route(f"{prefix}/embeddings", Generating(embeddings.embeddings), methods=["POST"]),
            Route(f"{prefix}/responses", Generating(responses.responses), methods=["POST"]),
            Route(f"{prefix}/chat/completions/render", Generating(tokens.render_chat), methods=["POST"]),
            Route(f"{prefix}/completions/render", Generating(tokens.render_completion), methods=["POST"]),
            Route(f"{prefix}/responses/input_tokens", Generating(tokens.input_tokens), methods=["POST"]),
            Route(f"{prefix}/score", Generating(scoring.score), methods=["POST"]),
            Route(f"{prefix}/rerank", Generating(scoring.rerank), methods=["POST"]),
            Route(f"{prefix}/models", models.list_models),
            Route(f"{prefix}/models/{{model:path}}", models.get_model),
        ]
    for prefix in ANTHROPIC_PREFIXES:
        routes += [
            Route(f"{prefix}/messages", Generating(anthropic.messages), methods=["POST"]),
            Route(f"{prefix}/messages/count_tokens", Generating(anthropic.count_tokens), methods=["POST"]),
        ]
    return routes


def _check_root_path(root_path: str, routes: list[BaseRoute]) -> None:
    """Where a prefix is the beginning of paths of ours, nobody could tell which of the two is meant."""
    for route in routes:
        if root_path and isinstance(route, Route) and f"{route.path}/".startswith(f"{root_path}/"):
            raise SettingsError(
                f"FAREBOX_ROOT_PATH is {root_path}, and {route.path} is a path of Farebox's own. Choose another prefix."
            )


def _cors(origins: tuple[str, ...]) -> list[Middleware]:
    """Outermost, so that errors can be read too. A preflight needs no key: browsers send none with it."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
        )
    ]


def _labels(routes: list[BaseRoute]) -> list[str]:
    """The routes' fixed beginnings: what a metric's `route` label may be."""
    return [route.path.partition("/{")[0] for route in routes if isinstance(route, Route)]

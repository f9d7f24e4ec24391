"""The ASGI application: dependencies in, routes and middleware as lists that can be read."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from gateway.auth import AuthMiddleware
from gateway.context import ContextMiddleware
from gateway.exchange import Generating
from gateway.responses import on_http_exception
from gateway.routes import health, models, native, openai
from gateway.state import Gateway

OPENAI_PREFIXES = ("/v1/openai", "/v1")


def create_app(gateway: Gateway) -> Starlette:
    """The application around its dependencies, which the caller opens and closes."""
    routes = _routes()
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(ContextMiddleware, metrics=gateway.metrics, routes=_labels(routes)),
            Middleware(AuthMiddleware, keys=gateway.keys),
        ],
        exception_handlers={HTTPException: on_http_exception},
    )
    app.state.gateway = gateway
    return app


def _routes() -> list[BaseRoute]:
    routes: list[BaseRoute] = [
        Route("/health", health.ready),
        Route("/health/live", health.live),
        Route("/health/ready", health.ready),
        Route("/metrics", health.metrics),
        Route("/v1/inference/{model:path}", Generating(native.infer), methods=["POST"]),
        Route("/v1/webhooks/secret", native.webhook_secret),
    ]
    for prefix in OPENAI_PREFIXES:
        routes += [
            Route(f"{prefix}/chat/completions", Generating(openai.chat_completions), methods=["POST"]),
            Route(f"{prefix}/completions", Generating(openai.completions), methods=["POST"]),
            Route(f"{prefix}/models", models.list_models),
            Route(f"{prefix}/models/{{model:path}}", models.get_model),
        ]
    return routes


def _labels(routes: list[BaseRoute]) -> list[str]:
    """The routes' fixed beginnings: what a metric's `route` label may be."""
    return [route.path.partition("/{")[0] for route in routes if isinstance(route, Route)]

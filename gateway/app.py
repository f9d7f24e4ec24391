"""The ASGI application: dependencies in, routes and middleware as lists that can be read."""

from importlib.metadata import version

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route

from gateway.console import console
from gateway.errors.responses import on_http_exception
from gateway.request.auth import AuthMiddleware
from gateway.request.context import ContextMiddleware
from gateway.request.edge import EdgeMiddleware
from gateway.routes import (
    admin,
    admin_adapters,
    anthropic,
    batches,
    documents,
    embeddings,
    files,
    health,
    message_batches,
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
    settings = gateway.settings
    routes = _routes()
    pages = None
    if settings.console:
        pages = console.Console(gateway, routes)
        others = [route for route in routes if not (isinstance(route, Route) and route.path == "/")]
        routes = [*others, Route("/", console.FrontDoor(), methods=["GET"]), *console.routes()]
    _check_root_path(settings.root_path, routes)
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(EdgeMiddleware, root_path=settings.root_path, trusted_proxies=settings.trusted_proxies),
            *_cors(settings.cors_origins),
            Middleware(ContextMiddleware, metrics=gateway.metrics, tracing=gateway.tracing, routes=_labels(routes)),
            Middleware(AuthMiddleware, keys=gateway.keys, open_prefix=console.PREFIX if settings.console else None),
        ],
        exception_handlers={HTTPException: on_http_exception},
    )
    app.router.redirect_slashes = False
    app.state.gateway = gateway
    app.state.console = pages
    app.state.documents = documents.Documents(routes, gateway.catalog, version("farebox"), settings.root_path)
    return app


def _routes() -> list[BaseRoute]:
    """In the order in which the router tries them: what generates comes first."""
    return [
        *(route for prefix in OPENAI_PREFIXES for route in _openai_routes(prefix)),
        *(route for prefix in ANTHROPIC_PREFIXES for route in _anthropic_routes(prefix)),
        Route("/v1/inference/{model:path}", Generating(native.infer), methods=["POST"]),
        Route("/", documents.root),
        Route("/health", health.ready),
        Route("/health/live", health.live),
        Route("/health/ready", health.ready),
        Route("/metrics", health.metrics),
        Route("/openapi.json", documents.openapi),
        Route("/docs", documents.docs),
        Route("/models/list", models.list_catalog),
        Route("/models/{model:path}", models.get_catalog_model),
        Route("/anthropic/v1/models", models.list_anthropic_models),
        Route("/anthropic/v1/models/{model:path}", models.get_anthropic_model),
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
        *admin_adapters.routes(),
    ]


def _openai_routes(prefix: str) -> list[Route]:
    return [
        Route(f"{prefix}/chat/completions", Generating(openai.chat_completions), methods=["POST"]),
        Route(f"{prefix}/completions", Generating(openai.completions), methods=["POST"]),
        Route(f"{prefix}/embeddings", Generating(embeddings.embeddings), methods=["POST"]),
        Route(f"{prefix}/responses", Generating(responses.responses), methods=["POST"]),
        Route(f"{prefix}/chat/completions/render", Generating(tokens.render_chat), methods=["POST"]),
        Route(f"{prefix}/completions/render", Generating(tokens.render_completion), methods=["POST"]),
        Route(f"{prefix}/responses/input_tokens", Generating(tokens.input_tokens), methods=["POST"]),
        Route(f"{prefix}/score", Generating(scoring.score), methods=["POST"]),
        Route(f"{prefix}/rerank", Generating(scoring.rerank), methods=["POST"]),
        Route(f"{prefix}/files", files.upload_file, methods=["POST"]),
        Route(f"{prefix}/files", files.list_files),
        Route(f"{prefix}/files/{{id}}", files.get_file),
        Route(f"{prefix}/files/{{id}}", files.delete_file, methods=["DELETE"]),
        Route(f"{prefix}/files/{{id}}/content", files.get_content),
        Route(f"{prefix}/batches", batches.create_batch, methods=["POST"]),
        Route(f"{prefix}/batches", batches.list_batches),
        Route(f"{prefix}/batches/{{id}}", batches.get_batch),
        Route(f"{prefix}/batches/{{id}}/cancel", batches.cancel_batch, methods=["POST"]),
        Route(f"{prefix}/models", models.list_models),
        Route(f"{prefix}/models/{{model:path}}", models.get_model),
    ]


def _anthropic_routes(prefix: str) -> list[Route]:
    return [
        Route(f"{prefix}/messages", Generating(anthropic.messages), methods=["POST"]),
        Route(f"{prefix}/messages/count_tokens", Generating(anthropic.count_tokens), methods=["POST"]),
        Route(f"{prefix}/messages/batches", message_batches.create_batch, methods=["POST"]),
        Route(f"{prefix}/messages/batches", message_batches.list_batches),
        Route(f"{prefix}/messages/batches/{{id}}", message_batches.get_batch),
        Route(f"{prefix}/messages/batches/{{id}}", message_batches.delete_batch, methods=["DELETE"]),
        Route(f"{prefix}/messages/batches/{{id}}/cancel", message_batches.cancel_batch, methods=["POST"]),
        Route(f"{prefix}/messages/batches/{{id}}/results", message_batches.get_results),
    ]


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

"""What is known of a request while it runs: its id, when it came, how it ends. One log line and one count each."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import from_exception
from gateway.errors.responses import ErrorResponse
from gateway.protocol.fields import ignored_header, ignored_names
from gateway.request.edge import client_address
from gateway.telemetry.logs import log_request
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import UNTRACED, Trace, Tracing

log = logging.getLogger("farebox")

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
STATUS_CLIENT_GONE = 499  # nginx's number for a client that went away; logged, never sent


class RequestContext:
    """Mutable, and owned by one request. `id` is the client's x-request-id where it sent a sane one."""

    __slots__ = (
        "arrived",
        "code",
        "fields",
        "headers",
        "id",
        "ignored",
        "limit_headers",
        "model",
        "next_number",
        "route",
        "status",
        "trace",
    )

    def __init__(self, request_id: str, route: str, trace: Trace) -> None:
        self.id = request_id
        self.trace = trace
        self.route = route
        self.arrived = time.perf_counter()
        self.status = 0
        self.model = ""
        self.code = ""
        self.fields: dict[str, object] = {}
        self.headers: list[tuple[bytes, bytes]] = []  # more headers of the answer, whatever it will be
        self.ignored: tuple[str, ...] = ()  # of the request, by name
        self.limit_headers: list[tuple[bytes, bytes]] = []  # those that the limits keep current
        self.next_number: Callable[[], int] = int  # of the stream's next event, where events are numbered

    def ignore(self, names: Sequence[str]) -> None:
        """Name what the answer does without, in a header and on the log line."""
        if names:
            known = ignored_names([*self.ignored, *names])
            self.ignored = known
            self.fields["ignored"] = list(known)

    def fail(self, code: str, error: BaseException) -> None:
        """Remember why it failed, and log what nobody expected."""
        self.code = code
        if code == "internal_error":
            log.error("request %s failed", self.id, exc_info=error)

    def client_gone(self) -> None:
        self.status = STATUS_CLIENT_GONE
        self.code = "client_gone"


class ContextMiddleware:
    """Outermost: gives every answer its `x-request-id` and `openai-processing-ms`, counts it and logs it.

    Whatever is raised inside becomes an error here, in the shape of its route (`gateway.errors.shapes`).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing, routes: Iterable[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._known = frozenset(routes)
        self._routes = sorted(self._known, key=len, reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = self._context(scope)
        scope["farebox.context"] = context
        if (task := asyncio.current_task()) is not None:
            task.set_name(f"{scope['method']} {context.route}")  # for `gateway.telemetry.watchdog`

        async def start_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                elapsed_ms = (time.perf_counter() - context.arrived) * 1000
                message["headers"] = [
                    *message["headers"],
                    *context.headers,
                    *context.limit_headers,
                    *([ignored_header(context.ignored)] if context.ignored else ()),
                    (b"x-request-id", context.id.encode()),
                    (b"openai-processing-ms", b"%d" % elapsed_ms),
                ]
            await send(message)

        try:
            await self._app(scope, receive, start_with_headers)
        except Exception as error:
            if context.status:
                raise  # the answer has begun; the server closes the connection
            known = from_exception(error)
            context.fail(known.code, error)
            await ErrorResponse(known, context.route, context.id)(scope, receive, start_with_headers)
            # Its frames hold the body and are held by this one: that would wait for the garbage collector.
            known.__traceback__ = error.__traceback__ = None
        finally:
            self._record(context, scope["method"])

    def _context(self, scope: Scope) -> RequestContext:
        route = self._route(scope["path"])
        traced = (route, HTTPStatus.OK) not in QUIET
        trace = self._tracing.request(f"{scope['method']} {route}", Headers(scope=scope)) if traced else UNTRACED
        context = RequestContext(_request_id(scope), route, trace)
        if address := client_address(scope):
            context.fields["client"] = address
        return context

    def _route(self, path: str) -> str:
        """The known prefix of the path: a label must not hold what a client made up."""
        if path in self._known:
            return path
        return next((route for route in self._routes if path.startswith(route + "/")), "other")

    def _record(self, context: RequestContext, method: str) -> None:
        self._metrics.answered(context.model, context.route, str(context.status)).inc()
        if context.code and context.status != STATUS_CLIENT_GONE:
            self._metrics.rejections.labels(context.code).inc()
        if context.trace.on:
            context.trace.close(_attributes(context, method))
        if (context.route, context.status) not in QUIET:
            log_request(
                {
                    "request_id": context.id,
                    "method": method,
                    "route": context.route,
                    "status": context.status,
                    "seconds": round(time.perf_counter() - context.arrived, 4),
                    **({"code": context.code} if context.code else {}),
                    **({"model": context.model} if context.model else {}),
                    **context.fields,
                }
            )


# Probes and scrapes that went well are not news.
QUIET = {(route, 200) for route in ("/", "/health", "/health/live", "/health/ready", "/metrics")}


# On the log line -> on the span, by OpenTelemetry's names where it has some. Neither says what was said, or the key.
ATTRIBUTES = {
    "client": "client.address",
    "id": "gen_ai.response.id",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cost_usd": "farebox.cost_usd",
    "outcome": "farebox.outcome",
}


def _attributes(context: RequestContext, method: str) -> dict[str, str | int | float]:
    found: dict[str, str | int | float] = {
        "http.request.method": method,
        "http.route": context.route,
        "http.response.status_code": context.status,
        "farebox.request_id": context.id,
    }
    if context.model:
        found["gen_ai.request.model"] = context.model
    if context.code:
        found["error.type"] = context.code
    for name, attribute in ATTRIBUTES.items():
        if isinstance(value := context.fields.get(name), str | int):
            found[attribute] = value
    return found


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if REQUEST_ID.fullmatch(text):
                return str(text)
    return f"req-{secrets.token_hex(12)}"

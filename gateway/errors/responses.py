"""Answers outside the generating routes."""

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from gateway.errors import GatewayError, from_exception
from gateway.errors.shapes import error_body


class ErrorResponse(JSONResponse):
    """An error as the client sees it: in the shape of its route (`gateway.errors.shapes`)."""

    def __init__(self, error: GatewayError, route: str, request_id: str) -> None:
        super().__init__(error_body(error, route, request_id), status_code=error.status, headers=error.headers)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own errors (no such path, wrong method) in our shape; OPTIONS is answered with the methods."""
    known = from_exception(error)
    if known.status == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of the first route with this path; there may be more.
        allowed = ", ".join(sorted(_methods(request) | {"OPTIONS"}))
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers={"allow": allowed})
        known.headers = {"allow": allowed}
    context = request.scope["farebox.context"]
    context.fail(known.code, error)
    return ErrorResponse(known, context.route, context.id)


def _methods(request: Request) -> set[str]:
    """Of all routes with the request's path."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return {
        method
        for route in routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }

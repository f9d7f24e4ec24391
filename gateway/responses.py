"""Answers outside the generating routes."""

from starlette.requests import Request
from starlette.responses import JSONResponse

from gateway.errors import GatewayError, from_exception


class ErrorResponse(JSONResponse):
    """An error as the client sees it, in the one shape of `gateway.errors`."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__(error.body(), status_code=error.status, headers=error.headers)


async def on_http_exception(request: Request, error: Exception) -> ErrorResponse:
    """Starlette's own errors (no such path, wrong method) in our shape."""
    known = from_exception(error)
    request.scope["farebox.context"].fail(known.code, error)
    return ErrorResponse(known)

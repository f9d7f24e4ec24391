"""What the handlers of `/admin` share: reading what came, and pages of what goes out."""

from typing import TypeVar

from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse

from gateway.protocol import admin as protocol
from gateway.protocol.body import Body
from gateway.protocol.checks import parse_json, validate
from gateway.request.bodies import read_body
from gateway.state import Gateway
from pricing.key import Key

TAG = "Administration"


class RowConvertor(IntegerConvertor):
    """`{id:row}` in a path. A number of more digits than any id has matches no path, so that Python, which refuses to
    read 4,301 of them, never sees it."""

    regex = "[0-9]{1,19}"


register_url_convertor("row", RowConvertor())
B = TypeVar("B", bound=Body)


async def read_body_as(request: Request, kind: type[B]) -> B:
    """The JSON body; an empty one counts as {}."""
    raw = await read_body(request.headers, request.receive, gateway_of(request).settings)
    return validate(kind, parse_json(raw or b"{}"))


def read_query(request: Request, kind: type[B]) -> B:
    return validate(kind, dict(request.query_params))


def page(data: list[dict[str, object]], limit: int) -> JSONResponse:
    """A page of one more row than asked for says by it that there are more; `next` is the cursor to go on from."""
    shown = data[:limit]
    more = len(data) > limit
    return JSONResponse(
        {"object": "list", "data": shown, "has_more": more, "next": str(shown[-1]["id"]) if more else None}
    )


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def id_of(request: Request) -> int:
    found: int = request.path_params["id"]
    return min(found, protocol.ID_MAX)  # there is none as large


def actor_of(request: Request) -> str:
    key: Key = request.scope["farebox.key"]
    return f"admin key {key.id} ({key.prefix})"

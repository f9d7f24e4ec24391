"""One request to the console, guarded: who asks, whether one of our own pages sent it, and what an answer must say.

Every handler is wrapped in a `Page`, which must be told who may come: nothing is open by having been forgotten.
"""

import asyncio
import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.console.sessions import Principal, Session
from gateway.errors import (
    BodyTooLarge,
    GatewayError,
    InvalidAPIKey,
    InvalidRequest,
    NotFound,
    RequestTimeout,
    UnsupportedMediaType,
    from_exception,
)
from gateway.errors.responses import ErrorResponse
from gateway.state import Gateway

if TYPE_CHECKING:
    from gateway.console.console import Console

COOKIE = "farebox_session"
FORM = "application/x-www-form-urlencoded"
FORM_BYTES_MAX = 64 * 2**10
FORM_FIELDS_MAX = 200

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with none at all, a browser would send forms without their origin
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Access(enum.Enum):
    """Who may open a page."""

    OPEN = "open"  # everybody
    CATALOG = "catalog"  # everybody, unless a setting closes the catalog
    SIGNED_IN = "signed in"
    OPERATOR = "operator"  # whoever signed in with an admin key


class Forbidden(GatewayError):
    """A form that none of our pages sent."""

    status, code, type = 403, "forbidden", "permission_error"


@dataclass(slots=True)
class Visit:
    """What a handler gets."""

    request: Request
    console: "Console"
    session: Session | None = None
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def gateway(self) -> Gateway:
        return self.console.gateway

    @property
    def principal(self) -> Principal:
        """Who is signed in; of pages that need it."""
        assert self.session is not None
        return self.session.principal

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query_params

    def page(self, template: str, status: int = 200, /, **context: object) -> Response:
        return self.console.rendering.page(self, template, status, context)

    def go(self, path: str) -> Response:
        """On to another page of the console, after a form has done something."""
        response = RedirectResponse(f"{self.console.root_path}{path}", 303)
        response.headers["cache-control"] = "no-store"
        return response


Handler = Callable[[Visit], Awaitable[Response]]


class Page:
    """The ASGI endpoint around a handler."""

    def __init__(self, handler: Handler, access: Access) -> None:
        self.handler = handler
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = Visit(Request(scope, receive), scope["app"].state.console)
        try:
            response = await self._answer(visit)
        except ClientDisconnect:
            scope["farebox.context"].client_gone()
            return
        except Exception as error:
            response = failed(visit, error)
        guard(response)
        await response(scope, receive, send)

    async def _answer(self, visit: Visit) -> Response:
        visit.session = await session_of(visit)
        if visit.request.method == "POST":
            await check_sender(visit)
        require(visit, self._access)
        return await self.handler(visit)


async def session_of(visit: Visit) -> Session | None:
    token = visit.request.cookies.get(COOKIE)
    return await visit.console.sessions.find(token) if token else None


def require(visit: Visit, access: Access) -> None:
    """Raises InvalidAPIKey where one must sign in, and NotFound where that wouldn't help."""
    if access is Access.CATALOG:
        access = Access.OPEN if visit.gateway.settings.console_catalog_public else Access.SIGNED_IN
    if access is Access.OPEN:
        return
    if visit.session is None:
        raise InvalidAPIKey
    if access is Access.OPERATOR and not visit.principal.is_operator:
        raise NotFound("There is no such page.")


async def check_sender(visit: Visit) -> None:
    """Raises Forbidden unless one of our own pages sent this, and reads its form.

    A browser says where a form comes from (Sec-Fetch-Site; Origin). Beside that, whoever is signed in must send the
    token of the session.
    """
    headers = visit.request.headers
    if not from_here(headers):
        raise Forbidden("This form wasn't sent by a page of this console. Open the page and send it from there.")
    csrf = headers.get("x-csrf-token", "")
    if headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
        visit.form = await read_form(visit)
        csrf = csrf or visit.form.get("csrf", "")
    elif not csrf:
        raise UnsupportedMediaType(f"The console takes forms ({FORM}).")
    if visit.session is not None and not visit.session.sent_by_us(csrf):
        raise Forbidden("The page that sent this belongs to another session. Open it again, and send it from there.")


def from_here(headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == headers.get("host")


async def read_form(visit: Visit) -> dict[str, str]:
    """The fields of a form, without those that were left empty; several of one name on lines of their own.

    Raises BodyTooLarge, RequestTimeout, InvalidRequest, ClientDisconnect.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(visit.gateway.settings.body_timeout_seconds):
            async for chunk in visit.request.stream():
                body += chunk
                if len(body) > FORM_BYTES_MAX:
                    raise BodyTooLarge(f"The form is larger than {FORM_BYTES_MAX} bytes.")
    except TimeoutError:
        raise RequestTimeout("The form took too long to come.") from None
    try:
        pairs = parse_qsl(body.decode("utf-8"), max_num_fields=FORM_FIELDS_MAX, errors="strict")
    except ValueError:
        raise InvalidRequest("The form can't be read.") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        if text := value.strip():
            fields[name] = f"{fields[name]}\n{text}" if name in fields else text
    return fields


def failed(visit: Visit, error: Exception) -> Response:
    """A page that says what went wrong, for a browser; for a program the error in its usual shape."""
    known = from_exception(error)
    context = visit.request.scope["farebox.context"]
    context.fail(known.code, error)
    if "text/html" not in visit.request.headers.get("accept", ""):
        return ErrorResponse(known, context.route, context.id)
    if isinstance(known, InvalidAPIKey) and visit.request.method in ("GET", "HEAD"):
        return visit.console.rendering.sign_in(visit, status=401, after=here(visit))
    return visit.page("error.html", known.status, error=known, request_id=context.id)


def here(visit: Visit) -> str:
    """This page's path and query, without the root path."""
    url = visit.request.url
    path = str(visit.request.scope["path"])
    return f"{path}?{url.query}" if url.query else path


def guard(response: Response) -> None:
    """The headers of every answer. What a page shows is its reader's alone."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("cache-control", "no-store")

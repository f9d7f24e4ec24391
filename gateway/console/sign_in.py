"""Signing in with a key, and out."""

from starlette.responses import Response

from gateway.console.visits import COOKIE, Visit
from gateway.errors import InvalidAPIKey

WELCOME = "/console/overview"


async def form(visit: Visit) -> Response:
    return visit.console.rendering.sign_in(visit, after=visit.query.get("next", ""))


async def sign_in(visit: Visit) -> Response:
    """The token in the cookie is made here and now: whatever came before is ended and never adopted."""
    sessions = visit.console.sessions
    after = visit.form.get("next", "")
    session = await sessions.open(visit.form.get("key", ""))
    if session is None:
        problem = "That key isn't valid: mistyped, expired or revoked."
        return visit.console.rendering.sign_in(visit, status=InvalidAPIKey.status, after=after, problem=problem)
    if visit.session is not None:
        await sessions.end(visit.session.token)
    response = visit.go(after if is_ours(after) else WELCOME)
    response.set_cookie(
        COOKIE,
        session.token,
        max_age=sessions.life_seconds,
        path=visit.console.root_path or "/",
        secure=visit.request.scope["scheme"] == "https",
        httponly=True,
        samesite="lax",
    )
    return response


async def sign_out(visit: Visit) -> Response:
    if visit.session is not None:
        await visit.console.sessions.end(visit.session.token)
    response = visit.go("/console")
    response.delete_cookie(COOKIE, path=visit.console.root_path or "/")
    return response


def is_ours(path: str) -> bool:
    """A page of the console. It is appended to our own address, so it can't lead to another host."""
    return path == "/console" or path.startswith(("/console/", "/console?"))

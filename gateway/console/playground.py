"""Generating from the playground: the API's own endpoint, for whoever is signed in.

It is checked, limited, reserved and charged as any other request, under the session's key. Nothing of it is kept here.
"""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.console.visits import Visit, check_sender, session_of
from gateway.errors import InvalidAPIKey, ModelNotAllowed


class BySession:
    """The ASGI endpoint around one that takes a key: the session's key is put in, if our own page asks."""

    def __init__(self, endpoint: ASGIApp) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = Visit(Request(scope, receive), scope["app"].state.console)
        visit.session = await session_of(visit)
        if visit.session is None:
            raise InvalidAPIKey
        await check_sender(visit)
        key = visit.principal.key
        if visit.principal.is_operator:
            raise ModelNotAllowed("An admin key can't generate. Put a client's key into the playground.")
        scope["farebox.key"] = key
        scope["farebox.context"].fields["key"] = key.prefix
        await self._endpoint(scope, receive, send)

"""Who is asking. Default-deny: every path needs a key but the listed ones."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import InvalidAPIKey, NotFound
from pricing.directory import KeyDirectory
from pricing.keys import Key

OPEN_PATHS = frozenset({"/", "/health", "/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs"})
ADMIN_PREFIX = "/admin"


class AuthMiddleware:
    """Puts the caller's `Key` into the scope. Raises InvalidAPIKey, and NotFound for the wrong kind of key."""

    def __init__(self, app: ASGIApp, keys: KeyDirectory, open_prefix: str | None = None) -> None:
        """Beneath `open_prefix` keys don't decide who may come: there every page says it (`gateway.console.visits`)."""
        self._app = app
        self._keys = keys
        self._open = OPEN_PATHS if open_prefix is None else OPEN_PATHS | {open_prefix}
        self._beneath = () if open_prefix is None else (f"{open_prefix}/",)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open or scope["path"].startswith(self._beneath):
            await self._app(scope, receive, send)
            return
        trace = scope["farebox.context"].trace
        trace.begin("auth")
        key = await self._authenticate(Headers(scope=scope))
        trace.end("auth")
        # An admin key spends no money, and a user's key must not learn what /admin holds.
        if scope["path"].startswith(ADMIN_PREFIX) != (key.role == "admin"):
            raise NotFound(_wrong_role(key))
        scope["farebox.key"] = key
        scope["farebox.context"].fields["key"] = key.prefix
        await self._app(scope, receive, send)

    async def _authenticate(self, headers: Headers) -> Key:
        secret = presented_key(headers)
        if secret is None:
            raise InvalidAPIKey
        key = self._keys.find(secret) or await self._keys.resolve(secret)
        if key is None:
            raise InvalidAPIKey
        return key


def presented_key(headers: Headers) -> str | None:
    """`Authorization: Bearer KEY` in any case, or `x-api-key: KEY`."""
    scheme, _, secret = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return secret.strip()
    return headers.get("x-api-key", "").strip() or None


def _wrong_role(key: Key) -> str:
    if key.role == "admin":
        return "An admin key works under /admin only. Use a client's key for this path."
    return "There is no such path. The API's paths start with /v1; see /openapi.json."

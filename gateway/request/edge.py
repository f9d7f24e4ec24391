"""What proxies in front do to a request, undone: a path with a prefix, and the address of a client behind them.

Everything further in (keys, routes, labels of metrics, the log) sees one path and one address, and no answer ever
sends a client to another path: a redirect would lose its key or send it in clear.
"""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


class EdgeMiddleware:
    """Outermost. Takes the root path and slashes at the end off the path. Puts the client's address, and whether it
    came by https, into the scope where a trusted proxy tells them."""

    def __init__(self, app: ASGIApp, root_path: str, trusted_proxies: Sequence[Network]) -> None:
        self._app = app
        self._root_path = root_path
        self._trusted = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if self._root_path and (path + "/").startswith(self._root_path + "/"):
                path = path[len(self._root_path) :]
            if path[-1:] in ("", "/"):
                path = path.rstrip("/") or "/"
            scope["path"] = path
            if self._trusted and scope["client"] is not None:
                self._believe(scope)
        await self._app(scope, receive, send)

    def _believe(self, scope: Scope) -> None:
        peer = _address(scope["client"][0])
        if peer is None or not self._trusts(peer):
            return
        headers = Headers(scope=scope)
        for hop in _hops(headers):
            if hop is None:
                break  # what is further left came through something that we don't understand
            scope["client"] = (str(hop), 0)
            if not self._trusts(hop):
                break
        proto = headers.getlist("x-forwarded-proto")
        if len(proto) == 1 and proto[0].strip().lower() in ("http", "https"):
            scope["scheme"] = proto[0].strip().lower()

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def client_address(scope: Scope) -> str:
    """The client's address as text, "" where there is none (a Unix socket)."""
    client = scope.get("client")
    address = _address(client[0]) if client else None
    return "" if address is None else str(address)


def _hops(headers: Headers) -> Iterator[Address | None]:
    """From the nearest to the farthest; None for what is no address. Each proxy adds its client at the right."""
    for hop in reversed(",".join(headers.getlist("x-forwarded-for")).split(",")):
        host, colon, port = hop.strip().rpartition(":")
        with_port = colon and port.isdigit() and (host.count(":") == 0 or host.endswith("]"))
        yield _address((host if with_port else hop).strip().strip("[]"))


def _address(text: str) -> Address | None:
    """A socket that takes both kinds writes an IPv4 address as ::ffff:192.0.2.1."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address

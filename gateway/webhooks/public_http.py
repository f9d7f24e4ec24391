"""HTTP to addresses that clients name: it must reach nothing that only this machine or its network can reach.

The host is resolved here, each address is checked, and the connection goes to the very address that was checked, so
that a name can't change its mind in between (DNS rebinding). Redirects are not followed, proxies not used.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence

import httpx

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as texts. Raises OSError."""

ADDRESSES_MAX = 4  # tried in turn, such as IPv6 before IPv4
CONNECTIONS_MAX = 64

# What `ipaddress` takes for global and still leads inside: forms that carry an IPv4 address, which a router or the
# kernel would take out again, and blocks that were given up (RFC 4291, 3056, 4380, 6052, 8215, 3879, 7526).
_FORBIDDEN = tuple(
    ipaddress.ip_network(block)
    for block in (
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "fec0::/10",
        "192.88.99.0/24",
    )
)


class ForbiddenAddress(httpx.ConnectError):
    """The host is, or resolves to, an address that must not be reached."""


class WrongURL(ValueError):
    """The URL can't be called; the sentence says why."""


async def system_resolve(host: str, port: int) -> list[str]:
    """The machine's own resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Whether anyone on the internet could reach this address: not private, loopback, link-local, shared, multicast,
    reserved or documentation, and not an IPv6 form of an IPv4 address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    return not any(ip in block for block in _FORBIDDEN if block.version == ip.version)


def check_url(url: str, *, allow_private: bool) -> None:
    """Refuse what can be told to be wrong without asking the network. Raises WrongURL."""
    try:
        parts = httpx.URL(url)
        host = parts.host
    except (ValueError, httpx.InvalidURL):
        raise WrongURL("it must be a URL such as https://example.com/done.") from None
    if parts.scheme not in ("http", "https") or not host or any(character.isspace() for character in url):
        raise WrongURL("it must be an http or https URL with a host, such as https://example.com/done.")
    if parts.port is not None and not 0 < parts.port < 2**16:
        raise WrongURL("its port must be from 1 to 65535.")
    if parts.userinfo:
        raise WrongURL("it must hold no user or password; the signature tells who is calling.")
    if allow_private:
        return
    try:
        ipaddress.ip_address(host)
    except ValueError:
        forbidden = host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost")
    else:
        forbidden = not is_public(host)
    if forbidden:
        raise WrongURL("it must lead to a public address, not to a private, loopback, link-local or reserved one.")


class PinnedTransport(httpx.AsyncBaseTransport):
    """Connects to an address that was checked, under the name that was asked for (Host, SNI and certificate)."""

    def __init__(
        self, resolve: Resolve, *, allow_private: bool = False, inner: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        # No connection is kept: two names may share an address, and a TLS connection was made for one of them.
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=0)
        self._inner = inner or httpx.AsyncHTTPTransport(limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises ForbiddenAddress, httpx.ConnectError where the name can't be resolved, and what `inner` raises."""
        host = request.url.raw_host.decode("ascii")
        addresses = await self._checked(host, request)
        for address in addresses[:-1]:
            try:
                return await self._inner.handle_async_request(_pinned(request, address, host))
            except httpx.ConnectError:
                continue
        return await self._inner.handle_async_request(_pinned(request, addresses[-1], host))

    async def _checked(self, host: str, request: httpx.Request) -> Sequence[str]:
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        try:
            found = await self._resolve(host, port)
        except OSError as error:
            raise httpx.ConnectError(f"the host can't be resolved: {error}", request=request) from None
        allowed = [address for address in found if self._allow_private or is_public(address)]
        if not allowed:
            raise ForbiddenAddress("the host has no public address", request=request)
        return allowed[:ADDRESSES_MAX]

    async def aclose(self) -> None:
        await self._inner.aclose()


def _pinned(request: httpx.Request, address: str, host: str) -> httpx.Request:
    # The headers keep the Host of the original URL. `sni_hostname` is what TLS asks for and checks the certificate by.
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )


class Poster:
    """POSTs to clients' URLs. Nothing of an answer is read but its status."""

    def __init__(self, transport: httpx.AsyncBaseTransport, *, timeout_seconds: float, user_agent: str) -> None:
        self._timeout_seconds = timeout_seconds
        # trust_env would put the environment's proxy in place of the transport.
        self._client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=timeout_seconds,
            headers={"user-agent": user_agent},
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> str | None:
        """None when it was taken (a status of 2xx), else why not, in words."""
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._client.stream("POST", url, content=body, headers=headers) as response,
            ):
                return None if response.is_success else f"the receiver answered with the status {response.status_code}"
        except TimeoutError:
            return f"no answer within {self._timeout_seconds:g} s"
        except Exception as error:  # what a client's URL brings about is the attempt's failure, whatever it is
            return f"{type(error).__name__}: {error}"

    async def close(self) -> None:
        await self._client.aclose()

"""Where a request ends, and the next begins: what RFC 9112 asks beyond what the parser checks.

The parser (llhttp) refuses what is malformed. What is well-formed and yet read in two ways by two programs is refused
here; whoever reads it otherwise than the proxy in front would take a part of one client's request for another's.
"""

import re
from collections.abc import Sequence

import httptools

from gateway.errors import HTTPVersionNotSupported, InvalidRequest, NotSupported

RawHeaders = Sequence[tuple[bytes, bytes]]

VERSIONS = ("1.1", "1.0")
# RFC 9112 section 3.2, RFC 3986 section 3.2: a name or an address, and perhaps a port.
HOST = re.compile(rb"(?:\[[\w.:~%-]+\]|[\w.~%!$&'()*+,;=-]*)(?::[0-9]*)?", re.ASCII)
LINE_BYTES = len(b": \r\n")


def check_head(version: str, headers: RawHeaders) -> None:
    """A request's head, which the parser has taken. `headers` have lower-case names.

    Raises HTTPVersionNotSupported, InvalidRequest, NotSupported; the connection is to be closed then.
    """
    if version not in VERSIONS:
        raise HTTPVersionNotSupported(f"HTTP/{version} isn't spoken here; HTTP/1.1 and HTTP/1.0 are.")
    hosts, codings = [], []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise InvalidRequest(f"A request has one Host header; this one has {len(hosts) or 'none'}.")
    if hosts and not HOST.fullmatch(hosts[0].strip()):
        raise InvalidRequest("The Host header isn't the name or the address of a host, with or without a port.")
    if codings:
        _check_codings(version, b",".join(codings).lower())


def _check_codings(version: str, codings: bytes) -> None:
    if version == "1.0":
        raise InvalidRequest("HTTP/1.0 has no Transfer-Encoding. Send a Content-Length.")
    if codings.rpartition(b",")[2].strip() != b"chunked":
        raise InvalidRequest("Where the Transfer-Encoding doesn't end in chunked, the body has no end.")
    if codings.strip() != b"chunked":
        raise NotSupported("The only Transfer-Encoding that is taken is chunked. Content-Encoding may be gzip.")


def head_bytes(url: bytes, headers: RawHeaders) -> int:
    """About how large a head was as it came."""
    return len(url) + sum(len(name) + len(value) + LINE_BYTES for name, value in headers)


def without_offer(method: bytes, url: bytes, version: str, headers: RawHeaders) -> bytes:
    """The head of the same request, which doesn't offer to change the protocol."""
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    lines += [b"%b: %b" % (name, value) for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


def origin_form(method: bytes, url: bytes) -> bytes:
    """The path and query of a target that isn't only these (RFC 9112 section 3.2). Raises InvalidRequest."""
    if url == b"*":
        if method != b"OPTIONS":
            raise InvalidRequest("The target * is for OPTIONS only.")
        return b"/"
    parsed = httptools.parse_url(url)
    return (parsed.path or b"/") + (b"?" + parsed.query if parsed.query is not None else b"")

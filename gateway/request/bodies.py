"""A request's body: all of it, within limits of size and time."""

import asyncio
import codecs
import zlib

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from gateway.errors import BodyTooLarge, InvalidRequest, RequestTimeout, UnsupportedMediaType
from gateway.settings import Settings

THREAD_BYTES = 4096  # a body of fewer bytes is plain again before a thread could begin
JSON_TYPES = ("application/json", "text/json")
GZIP_MEMBERS_MAX = 1000
GZIP_PIECE_BYTES = 16 * 2**10


async def read_body(headers: Headers, receive: Receive, settings: Settings) -> bytes:
    """The whole body, decompressed, within the settings' size and time.

    Raises UnsupportedMediaType unless it says that it is JSON, BodyTooLarge, RequestTimeout, ClientDisconnect.
    """
    bytes_max, seconds_max = settings.body_bytes_max, settings.body_timeout_seconds
    content_type = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type not in JSON_TYPES and not content_type.endswith("+json"):
        raise UnsupportedMediaType(f'The body must be JSON (content-type application/json); got "{content_type[:80]}".')
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    try:
        async with asyncio.timeout(seconds_max):
            body = await _receive_all(receive, bytes_max)
    except TimeoutError:
        raise RequestTimeout(f"The body took longer than the {seconds_max:g} seconds that are allowed.") from None
    encoding = ",".join(headers.getlist("content-encoding")).strip().lower() or "identity"
    if encoding in ("gzip", "x-gzip"):
        if len(body) > THREAD_BYTES:
            body = await asyncio.to_thread(_gunzip, body, bytes_max)
        else:
            body = _gunzip(body, bytes_max)
    elif encoding != "identity":
        raise UnsupportedMediaType(f'The body may be plain or gzip; got content-encoding "{encoding[:40]}".')
    return body.removeprefix(codecs.BOM_UTF8)  # RFC 8259 section 8.1: it may be there, and means nothing


async def _receive_all(receive: Receive, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > bytes_max:
            raise _too_large(bytes_max)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _gunzip(body: bytes, bytes_max: int) -> bytes:
    """All members of a gzip body, one after the other (RFC 1952 section 2.2), of which nothing may be left.

    A member's end is looked for in pieces: zlib copies what it was given beyond it.
    """
    parts: list[bytes] = []
    size = start = 0
    for _ in range(GZIP_MEMBERS_MAX):
        decompressor = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        while not decompressor.eof:
            piece = body[start : start + GZIP_PIECE_BYTES]
            if not piece:
                raise InvalidRequest("The gzip body is cut off.", code="invalid_json")
            try:
                parts.append(decompressor.decompress(piece, bytes_max + 1 - size))
            except zlib.error as error:
                raise InvalidRequest(f"The body is not valid gzip: {error}.", code="invalid_json") from None
            start += len(piece) - len(decompressor.unused_data)
            size += len(parts[-1])
            if size > bytes_max:
                raise _too_large(bytes_max)
        if start == len(body):
            return b"".join(parts)
    raise InvalidRequest(f"The gzip body has more than {GZIP_MEMBERS_MAX} members.", code="invalid_json")


def _too_large(bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than the {bytes_max} bytes that are allowed. Send less.")

"""A request's body: all of it, within limits of size and time."""

import asyncio
import zlib

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from gateway.errors import BodyTooLarge, InvalidRequest, RequestTimeout, UnsupportedMediaType
from gateway.settings import Settings

THREAD_BYTES = 4096  # a body of fewer bytes is plain again before a thread could begin
JSON_TYPES = ("application/json", "text/json")


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
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding in ("gzip", "x-gzip"):
        if len(body) > THREAD_BYTES:
            return await asyncio.to_thread(_gunzip, body, bytes_max)
        return _gunzip(body, bytes_max)
    raise UnsupportedMediaType(f'The body may be plain or gzip; got content-encoding "{encoding[:40]}".')


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
    decompressor = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = decompressor.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise InvalidRequest(f"The body is not valid gzip: {error}.", code="invalid_json") from None
    if len(plain) > bytes_max:
        raise _too_large(bytes_max)
    if not decompressor.eof:
        raise InvalidRequest("The gzip body is cut off.", code="invalid_json")
    return plain


def _too_large(bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than the {bytes_max} bytes that are allowed. Send less.")

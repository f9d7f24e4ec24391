"""OpenAI's files, under `/v1/files` and `/v1/openai/files`: what batches are made from, and what they come to."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from gateway.errors import (
    BodyTooLarge,
    InvalidParameter,
    NotFound,
    RequestTimeout,
)
from gateway.files.files import File
from gateway.files.form import FormReader
from gateway.files.shapes import DeletedFile, FileObject, FilePage, file_object
from gateway.protocol.checks import validate
from gateway.protocol.files import FileList, Upload
from gateway.protocol.operation import JSON, Operation, documented
from gateway.settings import Settings
from gateway.state import Gateway
from pricing.keys import Key
from storage.text import stored

TAG = "Files"
OCTETS = "application/octet-stream"
FORM_BYTES = 64 * 2**10  # what a form may have beside its file
FILENAME_CHARACTERS_MAX = 256


@documented(
    Operation(
        TAG,
        "Upload a file for a batch",
        "A line of it is one request; see `POST /v1/batches`. Without `expires_after` it is kept for 30 days, or as "
        "the operator says.",
        form=Upload,
        answers={JSON: FileObject},
    )
)
async def upload_file(request: Request) -> Response:
    gateway, key = _gateway(request), _key(request)
    reader = FormReader(request.headers.get("content-type", ""))
    async with gateway.files.incoming.file() as path:
        try:
            form = await reader.read(_within(request, gateway.settings), path)
        except ClientDisconnect:
            request.scope["farebox.context"].client_gone()
            return Response(status_code=400)
        asked = validate(Upload, _nested(form.fields))
        if form.filename is None:
            raise InvalidParameter("`file` must be a file with a name; there is none in the form.", param="file")
        await _check_room(gateway, key, form.size)
        name = stored(form.filename, FILENAME_CHARACTERS_MAX)
        seconds = asked.expires_after.seconds if asked.expires_after is not None else None
        file = replace(gateway.files.new(key.account_id, key.id, name, seconds), bytes=form.size)
        await gateway.files.add(file, path)
    return JSONResponse(file_object(file))


@documented(Operation(TAG, "Your account's files", query=FileList, answers={JSON: FilePage}))
async def list_files(request: Request) -> JSONResponse:
    gateway, key = _gateway(request), _key(request)
    asked = validate(FileList, dict(request.query_params))
    after = None if asked.after is None else await find(gateway, key, asked.after, "after")
    found = await gateway.files.list(
        key.account_id, after=after, count=asked.limit + 1, order=asked.order, purpose=asked.purpose
    )
    return JSONResponse(page([file_object(file) for file in found], asked.limit))


@documented(Operation(TAG, "One file", answers={JSON: FileObject}))
async def get_file(request: Request) -> JSONResponse:
    return JSONResponse(file_object(await _file(request)))


@documented(Operation(TAG, "Delete a file", "A batch that reads it fails.", answers={JSON: DeletedFile}))
async def delete_file(request: Request) -> JSONResponse:
    file = await _file(request)
    await _gateway(request).files.delete(file.id)
    deleted: DeletedFile = {"id": file.id, "object": "file", "deleted": True}
    return JSONResponse(deleted)


@documented(Operation(TAG, "A file's content", answers={OCTETS: None}))
async def get_content(request: Request) -> Response:
    file = await _file(request)
    return await content(_gateway(request), file, OCTETS)


async def content(gateway: Gateway, file: File, media_type: str) -> Response:
    """A file's bytes, as they are read. Raises NotFound."""
    pieces = gateway.files.read(file.id)
    try:
        first = await anext(pieces, b"")
    except FileNotFoundError:
        raise NotFound(f'The content of "{file.id}" is gone.') from None

    async def everything() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    headers = {
        "content-length": str(file.bytes),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename)}",
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(everything(), media_type=media_type, headers=headers)


async def find(gateway: Gateway, key: Key, file_id: str, param: str | None = None) -> File:
    """The file of the key's account. Raises NotFound."""
    file = await gateway.files.get(file_id, key.account_id) if file_id.isprintable() else None
    if file is None:
        raise NotFound(f'Your account has no file "{file_id[:128]}"; it may have expired.', param=param)
    return file


def page(data: list[Any], limit: int) -> dict[str, object]:
    """A page as OpenAI has it, of up to one more than was asked for."""
    shown = data[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(data) > limit,
    }


async def _within(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    """The body's pieces, as many as a file may be long, none of which may keep us waiting."""
    size, pieces = 0, request.stream()
    while True:
        try:
            async with asyncio.timeout(settings.body_timeout_seconds):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise RequestTimeout(f"Nothing of the file came for {settings.body_timeout_seconds:g} seconds.") from None
        if piece is None:
            return
        size += len(piece)
        if size > settings.file_bytes_max + FORM_BYTES:
            raise BodyTooLarge(f"The file is larger than the {settings.file_bytes_max} bytes that are allowed.")
        yield piece


def _nested(fields: Mapping[str, str]) -> dict[str, object]:
    """The fields, those in brackets as parts of one."""
    nested: dict[str, object] = {}
    for name, value in fields.items():
        outer, bracket, inner = name.removesuffix("]").partition("[")
        if not (bracket and name.endswith("]")):
            nested[name] = value
            continue
        held = nested.setdefault(outer, {})
        if isinstance(held, dict):
            held[inner] = value
    return nested


async def _check_room(gateway: Gateway, key: Key, size: int) -> None:
    """Raises BodyTooLarge where the file, or all of the account's, would be larger than is allowed."""
    settings = gateway.settings
    if size > settings.file_bytes_max:
        raise BodyTooLarge(f"The file has {size} bytes; {settings.file_bytes_max} are allowed.")
    if await gateway.files.bytes_of(key.account_id) + size > settings.file_account_bytes_max:
        raise BodyTooLarge(
            f"With this file your account's would have more than the {settings.file_account_bytes_max} bytes that are "
            "allowed. Delete some of them."
        )


async def _file(request: Request) -> File:
    return await find(_gateway(request), _key(request), request.path_params["id"])


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def _key(request: Request) -> Key:
    key: Key = request.scope["farebox.key"]
    return key

"""Anthropic's batches, under `/v1/messages/batches` and `/anthropic/v1/messages/batches`: OpenAI's in other shapes."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from gateway.batches.batch import Batch
from gateway.batches.shapes import DeletedMessageBatch, MessageBatch, MessageBatchList, message_batch
from gateway.errors import BodyTooLarge, Conflict, NotFound, RequestTimeout, UnsupportedMediaType
from gateway.protocol.batches import MessageBatchPage, NewMessageBatch
from gateway.protocol.checks import validate
from gateway.protocol.operation import JSON, LINES, Operation, documented
from gateway.routes.admin_common import gateway_of
from gateway.routes.anthropic import ERRORS, TAG
from gateway.routes.batches import find, key_of
from gateway.routes.files import content

GONE = {status: ERRORS[status] for status in (401, 404, 500, 503)}


@documented(
    Operation(
        TAG,
        "Run many conversations, in Anthropic's format",
        "They are run where the engine has room, at the model's batch price, and end within a day. What is wrong with "
        "one request's `params` is its result.",
        body=NewMessageBatch,
        answers={JSON: MessageBatch},
        others=ERRORS,
    )
)
async def create_batch(request: Request) -> Response:
    gateway, key = gateway_of(request), key_of(request)
    content_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if content_type != JSON or request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("The body must be JSON (content-type application/json), and not packed.")
    async with gateway.files.incoming.file() as path:
        try:
            await gateway.files.incoming.write(path, _within(request))
        except ClientDisconnect:
            request.scope["farebox.context"].client_gone()
            return Response(status_code=400)
        batch = await gateway.batches.create_from_messages(key, path)
    return JSONResponse(_shown(request, batch))


@documented(
    Operation(
        TAG,
        "Your account's batches of conversations, the newest first",
        query=MessageBatchPage,
        answers={JSON: MessageBatchList},
        others=GONE,
    )
)
async def list_batches(request: Request) -> JSONResponse:
    asked = validate(MessageBatchPage, dict(request.query_params))
    store, account_id = gateway_of(request).batches.store, key_of(request).account_id
    backwards = asked.before_id is not None
    named = asked.before_id or asked.after_id
    after = None if named is None else await find(request, named, "anthropic")
    found = await store.page(
        account_id,
        after=after,
        count=asked.limit + 1,
        order="asc" if backwards else "desc",
        dialect="anthropic",
    )
    shown = [_shown(request, batch) for batch in found[: asked.limit]]
    if backwards:
        shown.reverse()
    page: MessageBatchList = {
        "data": shown,
        "has_more": len(found) > asked.limit,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }
    return JSONResponse(page)


@documented(Operation(TAG, "One batch of conversations", answers={JSON: MessageBatch}, others=GONE))
async def get_batch(request: Request) -> JSONResponse:
    return JSONResponse(_shown(request, await _batch(request)))


@documented(
    Operation(
        TAG,
        "Cancel a batch of conversations",
        "No further request is begun; those that run end as they do.",
        answers={JSON: MessageBatch},
        others={**GONE, 409: ERRORS[409]},
    )
)
async def cancel_batch(request: Request) -> JSONResponse:
    batch = await _batch(request)
    if not batch.is_open:
        raise Conflict(f'The batch "{batch.id}" has ended.')
    return JSONResponse(_shown(request, await gateway_of(request).batches.cancel(batch)))


@documented(
    Operation(
        TAG,
        "Delete a batch of conversations that has ended",
        answers={JSON: DeletedMessageBatch},
        others={**GONE, 409: ERRORS[409]},
    )
)
async def delete_batch(request: Request) -> JSONResponse:
    batch = await _batch(request)
    if not await gateway_of(request).batches.store.delete(batch.id, batch.account_id):
        raise Conflict(f'The batch "{batch.id}" hasn\'t ended; cancel it first.')
    if batch.output_file_id is not None:
        await gateway_of(request).files.delete(batch.output_file_id)
    deleted: DeletedMessageBatch = {"id": batch.id, "type": "message_batch_deleted"}
    return JSONResponse(deleted)


@documented(Operation(TAG, "The results of a batch of conversations", answers={LINES: None}, others=GONE))
async def get_results(request: Request) -> Response:
    """A line for each request, in whatever order."""
    batch = await _batch(request)
    if batch.is_open:
        raise NotFound(f'The batch "{batch.id}" has no results yet; they are there when it has ended.')
    files = gateway_of(request).files
    file = await files.get(batch.output_file_id, batch.account_id) if batch.output_file_id is not None else None
    if file is None:
        raise NotFound(f'The results of the batch "{batch.id}" are gone, or there were none.')
    return await content(gateway_of(request), file, LINES)


async def _batch(request: Request) -> Batch:
    return await find(request, request.path_params["id"], "anthropic")


def _shown(request: Request, batch: Batch) -> MessageBatch:
    prefix = "anthropic/v1" if "/anthropic/v1/" in request.url.path else "v1"
    return message_batch(batch, f"{request.base_url}{prefix}/messages/batches/{batch.id}/results")


async def _within(request: Request) -> AsyncIterator[bytes]:
    """The body's pieces, as many as may come. Raises BodyTooLarge, RequestTimeout, ClientDisconnect."""
    settings, size, pieces = gateway_of(request).settings, 0, request.stream()
    while True:
        try:
            async with asyncio.timeout(settings.body_timeout_seconds):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise RequestTimeout(f"Nothing of the body came for {settings.body_timeout_seconds:g} seconds.") from None
        if piece is None:
            return
        size += len(piece)
        if size > settings.batch_body_bytes_max:
            raise BodyTooLarge(f"The body is larger than the {settings.batch_body_bytes_max} bytes that are allowed.")
        yield piece

"""OpenAI's batches, under `/v1/batches` and `/v1/openai/batches`."""

from starlette.requests import Request
from starlette.responses import JSONResponse

from gateway.batches.batch import Batch, Dialect
from gateway.batches.shapes import BatchList, BatchObject, batch_object
from gateway.errors import Conflict, InvalidParameter, NotFound
from gateway.protocol.batches import BatchPage, NewBatch
from gateway.protocol.checks import validate
from gateway.protocol.operation import JSON, Operation, documented
from gateway.routes.admin_common import gateway_of, read_body_as
from gateway.routes.files import find as find_file
from gateway.routes.files import page
from pricing.keys import Key

TAG = "Batches"


@documented(
    Operation(
        TAG,
        "Run many requests, each a line of a file",
        "They are run where the engine has room, at the model's batch price, and end within a day. The file is checked "
        "first: what is wrong is told by line and field in `errors`, and then nothing is run. `webhook` is a field of "
        "this gateway's own.",
        body=NewBatch,
        answers={JSON: BatchObject},
        errors=(429,),
    )
)
async def create_batch(request: Request) -> JSONResponse:
    gateway, key = gateway_of(request), key_of(request)
    body = await read_body_as(request, NewBatch)
    if body.webhook is not None:
        gateway.webhooks.check(key, body.webhook)
    file = await find_file(gateway, key, body.input_file_id, "input_file_id")
    if file.purpose != "batch":
        raise InvalidParameter(
            f'`input_file_id` must be a file of the purpose "batch"; that of "{file.id}" is "{file.purpose}".',
            param="input_file_id",
        )
    batch = await gateway.batches.create(
        key,
        "openai",
        body.endpoint,
        file.id,
        metadata=body.metadata,
        webhook=body.webhook,
        output_seconds=None if body.output_expires_after is None else body.output_expires_after.seconds,
    )
    return JSONResponse(batch_object(batch))


@documented(Operation(TAG, "Your account's batches, the newest first", query=BatchPage, answers={JSON: BatchList}))
async def list_batches(request: Request) -> JSONResponse:
    gateway, key = gateway_of(request), key_of(request)
    asked = validate(BatchPage, dict(request.query_params))
    after = None if asked.after is None else await find(request, asked.after, "openai")
    found = await gateway.batches.store.page(key.account_id, after=after, count=asked.limit + 1, dialect="openai")
    return JSONResponse(page([batch_object(batch) for batch in found], asked.limit))


@documented(Operation(TAG, "One batch", answers={JSON: BatchObject}))
async def get_batch(request: Request) -> JSONResponse:
    return JSONResponse(batch_object(await find(request, request.path_params["id"], "openai")))


@documented(
    Operation(
        TAG,
        "Cancel a batch",
        "No further line is begun; those that run end as they do, and what there is by then is in its files.",
        answers={JSON: BatchObject},
        errors=(409,),
    )
)
async def cancel_batch(request: Request) -> JSONResponse:
    batch = await find(request, request.path_params["id"], "openai")
    if not batch.is_open:
        raise Conflict(f'The batch "{batch.id}" has ended: it is {batch.status}.')
    return JSONResponse(batch_object(await gateway_of(request).batches.cancel(batch)))


async def find(request: Request, batch_id: str, dialect: Dialect) -> Batch:
    """The batch of the caller's account. Raises NotFound."""
    batch = None
    if batch_id.isprintable():
        batch = await gateway_of(request).batches.store.get(batch_id, key_of(request).account_id, dialect)
    if batch is None:
        raise NotFound(f'Your account has no batch "{batch_id[:128]}".')
    return batch


def key_of(request: Request) -> Key:
    key: Key = request.scope["farebox.key"]
    return key

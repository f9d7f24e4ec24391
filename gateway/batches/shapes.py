"""Batches and their results as OpenAI's and Anthropic's APIs show them."""

import json
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from gateway.batches.batch import Batch, Result, Status
from pricing.clock import iso_time
from pricing.money import usd_number

UNREACHED: dict[Status, tuple[str, str]] = {
    Status.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    Status.CANCELLED: ("batch_cancelled", "This request was not executed: the batch was cancelled before."),
}


class BatchFault(TypedDict):
    code: str
    message: str
    line: int | None
    param: str | None


class BatchFaults(TypedDict):
    object: Literal["list"]
    data: list[BatchFault]


class RequestCounts(TypedDict):
    total: int
    completed: int
    failed: int


class InputDetails(TypedDict):
    cached_tokens: int


class OutputDetails(TypedDict):
    reasoning_tokens: int


class BatchUsage(TypedDict):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class BatchObject(TypedDict):
    """Times are seconds since 1970. `estimated_cost` is what its lines were charged so far, in US dollars."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: BatchFaults | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    estimated_cost: float
    metadata: dict[str, str] | None
    webhook: NotRequired[str]


class BatchList(TypedDict):
    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class MessageCounts(TypedDict):
    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int


class MessageBatch(TypedDict):
    """`estimated_cost` is what its requests were charged so far, in US dollars."""

    id: str
    type: Literal["message_batch"]
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: MessageCounts
    created_at: str
    expires_at: str
    ended_at: str | None
    cancel_initiated_at: str | None
    archived_at: None
    results_url: str | None
    estimated_cost: float


class MessageBatchList(TypedDict):
    data: list[MessageBatch]
    has_more: bool
    first_id: str | None
    last_id: str | None


class DeletedMessageBatch(TypedDict):
    id: str
    type: Literal["message_batch_deleted"]


def batch_object(batch: Batch) -> BatchObject:
    tally = batch.tally
    faults: BatchFaults | None = None
    if batch.errors is not None:
        faults = {"object": "list", "data": json.loads(batch.errors)}
    fields: BatchObject = {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": faults,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": batch.created_at // 1000,
        "in_progress_at": _seconds(batch.in_progress_at),
        "expires_at": batch.expires_at // 1000,
        "finalizing_at": _seconds(batch.finalizing_at),
        "completed_at": _seconds(batch.completed_at),
        "failed_at": _seconds(batch.failed_at),
        "expired_at": _seconds(batch.expired_at),
        "cancelling_at": _seconds(batch.cancelling_at),
        "cancelled_at": _seconds(batch.cancelled_at),
        "request_counts": {"total": batch.total, "completed": tally.completed, "failed": tally.failed},
        "usage": {
            "input_tokens": tally.prompt_tokens,
            "input_tokens_details": {"cached_tokens": tally.cached_tokens},
            "output_tokens": tally.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": tally.reasoning_tokens},
            "total_tokens": tally.prompt_tokens + tally.completion_tokens,
        },
        "estimated_cost": usd_number(tally.cost),
        "metadata": None if batch.metadata is None else json.loads(batch.metadata),
    }
    if batch.webhook is not None:
        fields["webhook"] = batch.webhook
    return fields


def message_batch(batch: Batch, results_url: str) -> MessageBatch:
    ended = not batch.is_open
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if ended else "canceling" if batch.cancelling_at else "in_progress",
        "request_counts": _message_counts(batch),
        "created_at": iso_time(batch.created_at),
        "expires_at": iso_time(batch.expires_at),
        "ended_at": _time(batch.ended_at),
        "cancel_initiated_at": _time(batch.cancelling_at),
        "archived_at": None,
        "results_url": results_url if ended else None,
        "estimated_cost": usd_number(batch.tally.cost),
    }


def _message_counts(batch: Batch) -> MessageCounts:
    """As Anthropic's, all are processing until the batch has ended."""
    counts: MessageCounts = {"processing": batch.total, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    if batch.is_open:
        return counts
    unreached = batch.unreached
    counts |= {"processing": 0, "succeeded": batch.tally.completed, "errored": batch.tally.failed - unreached}
    if batch.status is Status.CANCELLED:
        counts["canceled"] = unreached
    else:
        counts["expired"] = unreached
    return counts


def result_line(batch: Batch, result: Result) -> bytes:
    """A line of the output file."""
    if batch.dialect == "anthropic":
        return _message_line(result.custom_id, f'{{"type":"succeeded","message":{result.body}}}')
    return _line(batch, result)


def error_line(batch: Batch, result: Result) -> bytes:
    """A line of the error file: a request that was refused, with the answer that it got."""
    if batch.dialect == "anthropic":
        return _message_line(result.custom_id, f'{{"type":"errored","error":{result.body}}}')
    return _line(batch, result)


def unreached_line(batch: Batch, number: int, custom_id: str, status: Status) -> bytes:
    """A line of the error file: a request that wasn't run."""
    if batch.dialect == "anthropic":
        kind = "canceled" if status is Status.CANCELLED else "expired"
        return _message_line(custom_id, f'{{"type":"{kind}"}}')
    code, message = UNREACHED[status]
    error = _json({"code": code, "message": message})
    return f'{_head(batch, number, custom_id)},"response":null,"error":{error}}}\n'.encode()


def _line(batch: Batch, result: Result) -> bytes:
    response = (
        f'{{"status_code":{result.status},"request_id":{_json(result.request_id)},"body":{result.body}}},"error":null'
    )
    return f'{_head(batch, result.line, result.custom_id)},"response":{response}}}\n'.encode()


def _head(batch: Batch, number: int, custom_id: str) -> str:
    request_id = f"batch_req_{batch.id.partition('_')[2]}_{number}"
    return f'{{"id":{_json(request_id)},"custom_id":{_json(custom_id)}'


def _message_line(custom_id: str, result: str) -> bytes:
    return f'{{"custom_id":{_json(custom_id)},"result":{result}}}\n'.encode()


def _json(value: Any) -> str:
    return json.dumps(value)


def _seconds(at: int | None) -> int | None:
    return None if at is None else at // 1000


def _time(at: int | None) -> str | None:
    return None if at is None else iso_time(at)

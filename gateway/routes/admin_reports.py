"""`/admin/usage`, `/admin/audit` and `/admin/ledger`: what was spent, changed and charged."""

import json
import tempfile
from collections.abc import Iterator
from typing import IO

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from gateway.protocol import admin as protocol
from gateway.protocol.operation import JSON, Operation, documented
from gateway.routes.admin_common import TAG, gateway_of, page, read_query
from gateway.routes.usage import TOTALS, report
from gateway.schemas import admin as answers
from pricing.audit import AuditLog
from pricing.export import ExportFilter, export_csv, export_parquet

CHUNK_BYTES = 1 << 16


@documented(
    Operation(
        TAG,
        "Totals by any of day, hour, account, key, model and user",
        "`user` is the `user` of the requests, told apart by the day. Hours and days are UTC.",
        query=protocol.AdminUsageQuery,
        answers=TOTALS,
    )
)
async def get_usage(request: Request) -> Response:
    """Totals by any of day, hour, account, key, model and user."""
    query = read_query(request, protocol.AdminUsageQuery)
    return await report(request, query, query.by, account_id=query.account_id, key_id=query.key_id)


@documented(
    Operation(
        TAG,
        "Changes to accounts and keys, the latest first",
        query=protocol.AuditPage,
        answers={JSON: answers.AuditList},
    )
)
async def list_audit(request: Request) -> JSONResponse:
    """The latest changes first; `?before=` goes on from a page's `next`."""
    query = read_query(request, protocol.AuditPage)
    records = await AuditLog(gateway_of(request).database).list(
        account_id=query.account_id, key_id=query.key_id, before=query.before, count_max=query.limit + 1
    )
    return page([protocol.audit_fields(record, json.loads(record.detail)) for record in records], query.limit)


@documented(
    Operation(
        TAG,
        "Every entry of the ledger",
        query=protocol.ExportQuery,
        answers={"text/csv": None, "application/vnd.apache.parquet": None},
        errors=(501,),
    )
)
async def export_ledger(request: Request) -> StreamingResponse:
    """Every entry, streamed: CSV page by page, Parquet through a temporary file (its directory comes last)."""
    query = read_query(request, protocol.ExportQuery)
    which = ExportFilter(query.since or 0, query.until, query.account_id, query.key_id)
    await gateway_of(request).ledger.settled()
    database = gateway_of(request).database
    headers = {"content-disposition": f'attachment; filename="ledger.{query.format}"'}
    if query.format == "csv":
        return StreamingResponse(export_csv(database, which), media_type="text/csv", headers=headers)
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it has been sent
    try:
        await export_parquet(database, spool, which)
    except BaseException:
        spool.close()
        raise
    return StreamingResponse(_sent(spool), media_type="application/vnd.apache.parquet", headers=headers)


def _sent(spool: IO[bytes]) -> Iterator[bytes]:
    with spool:
        spool.seek(0)
        while chunk := spool.read(CHUNK_BYTES):
            yield chunk

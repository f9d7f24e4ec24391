"""What a client may know of its own key: usage, single requests, limits.

Its own key only, not its account's other keys: those may be in other hands. `/admin/usage` shows them all.
"""

from collections.abc import Sequence
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.errors import NotFound
from gateway.protocol.admin import OwnUsageQuery, UsageQuery
from gateway.protocol.checks import validate
from gateway.protocol.operation import JSON, Operation, documented
from gateway.schemas import admin as answers
from gateway.schemas.usage_report import request_fields, usage_csv, usage_report
from gateway.state import Gateway
from pricing.keys import Key
from pricing.usage import Dimension, Usage

TAG = "Usage"
TOTALS = {JSON: answers.UsageReport, "text/csv": None}


@documented(
    Operation(
        TAG,
        "What your key spent",
        "Totals by any of day, hour, key, model and user (the `user` of the requests), separated by commas; days and "
        "hours are UTC. CSV with `format=csv` or `Accept: text/csv`.",
        query=OwnUsageQuery,
        answers=TOTALS,
    )
)
async def get_usage(request: Request) -> Response:
    """`GET /v1/usage?by=day,model&since=2026-11-01&until=2026-11-30`, as JSON or (`format=csv` or Accept) CSV."""
    key: Key = request.scope["farebox.key"]
    query = validate(OwnUsageQuery, dict(request.query_params))
    return await report(request, query, query.by, key_id=key.id)


async def report(
    request: Request,
    query: UsageQuery,
    by: Sequence[Dimension],
    *,
    account_id: int | None = None,
    key_id: int | None = None,
) -> Response:
    """Totals in the format that is asked for, with everything that this process has answered by now."""
    await _gateway(request).ledger.settled()
    totals = partial(
        Usage(_gateway(request).database).totals,
        since=query.since,
        until=query.until,
        account_id=account_id,
        key_id=key_id,
        model=query.model,
        user=query.user,
    )
    rows = await totals(by)
    wanted = query.format or ("csv" if "text/csv" in request.headers.get("accept", "") else "json")
    if wanted == "csv":
        return Response(usage_csv(rows, by), media_type="text/csv")
    (total,) = await totals(())
    return JSONResponse(usage_report(rows, total))


@documented(Operation(TAG, "One request of your key: its tokens and cost", answers={JSON: answers.RequestEntry}))
async def get_request(request: Request) -> JSONResponse:
    """`GET /v1/requests/{id}`: the id is the answer's, such as chatcmpl-..."""
    key: Key = request.scope["farebox.key"]
    request_id: str = request.path_params["id"]
    record = None
    if request_id.isprintable():
        await _gateway(request).ledger.settled()
        record = await Usage(_gateway(request).database).request(request_id, key_id=key.id)
    if record is None:
        raise NotFound(
            f'This key has made no request "{request_id[:128]}". The id is the `id` of the answer, such as '
            "chatcmpl-...; old entries may have been removed."
        )
    return JSONResponse(request_fields(record))


@documented(Operation(TAG, "Your key's limits, and what is left of them", answers={JSON: answers.RateLimitList}))
async def get_rate_limit(request: Request) -> JSONResponse:
    """`GET /v1/me/rate_limit`: every limit of this key, and what is left of it."""
    gateway = _gateway(request)
    key: Key = request.scope["farebox.key"]
    models = [model.name for model in gateway.catalog.visible_to(key.account_id) if key.allows(model.name)]
    standings = await gateway.limits.standings(key, models)
    data = [
        {
            "kind": {"requests": "requests_per_minute", "tokens": "tokens_per_minute"}.get(
                standing.kind, "concurrent_requests"
            ),
            "model": standing.model,
            "limit": standing.limit,
            "remaining": standing.remaining,
            "reset_seconds": standing.level.reset_ms / 1000,
        }
        for standing in standings
    ]
    return JSONResponse({"object": "list", "data": data})


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway

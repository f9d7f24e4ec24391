"""What happened, the latest first: requests, changes, and calls of webhooks."""

import json
from datetime import timedelta

from starlette.responses import Response, StreamingResponse

from gateway.console.names import account_names, key_names
from gateway.console.visits import Visit
from gateway.protocol.admin import AuditPage, Day, Id, Plain
from gateway.protocol.body import Query
from gateway.protocol.checks import validate
from gateway.webhooks.store import WebhookStore
from pricing.audit import AuditLog
from pricing.clock import start_of
from pricing.export import ExportFilter, export_csv
from pricing.request_log import LogFilter, RequestLog

PAGE = 50


class RequestsAsked(Query):
    """The page's address. Days are UTC and inclusive."""

    since: Day | None = None
    until: Day | None = None
    model: Plain | None = None
    account_id: Id | None = None
    key_id: Id | None = None
    before: Plain = ""

    def times(self) -> tuple[int, int | None]:
        """In milliseconds: the first, and the one after the last."""
        after = start_of(self.until + timedelta(days=1)) if self.until is not None else None
        return (start_of(self.since) if self.since is not None else 0), after


async def requests(visit: Visit) -> Response:
    asked, which = _requests_asked(visit)
    await visit.gateway.ledger.settled()
    database = visit.gateway.database
    found = await RequestLog(database).list(which, before=asked.before, count_max=PAGE + 1)
    shown = found[:PAGE]
    return visit.page(
        "requests.html",
        asked=asked,
        entries=shown,
        more=shown[-1].cursor if len(found) > PAGE else "",
        names=await key_names(database, [one.key_id for one in shown]) if visit.principal.is_operator else {},
        models=[model.name for model in visit.principal.models(visit.gateway.catalog)],
        query=visit.request.url.query,
    )


async def requests_csv(visit: Visit) -> Response:
    """Every entry in the ledger's own columns, streamed."""
    _, which = _requests_asked(visit)
    await visit.gateway.ledger.settled()
    wanted = ExportFilter(which.since, which.until, which.account_id, which.key_id)
    headers = {"content-disposition": 'attachment; filename="requests.csv"'}
    return StreamingResponse(export_csv(visit.gateway.database, wanted), media_type="text/csv", headers=headers)


async def audit(visit: Visit) -> Response:
    asked = validate(AuditPage, {**{name: value for name, value in visit.query.items() if value}, "limit": PAGE})
    database = visit.gateway.database
    found = await AuditLog(database).list(
        account_id=asked.account_id, key_id=asked.key_id, before=asked.before, count_max=PAGE + 1
    )
    shown = found[:PAGE]
    return visit.page(
        "audit.html",
        records=[(record, json.loads(record.detail)) for record in shown],
        more=shown[-1].id if len(found) > PAGE else None,
        asked=asked,
        accounts=await account_names(database, [record.account_id for record in shown]),
        keys=await key_names(database, [record.key_id for record in shown]),
    )


async def webhooks(visit: Visit) -> Response:
    store = WebhookStore(visit.gateway.database)
    calls = await store.latest(PAGE)
    return visit.page(
        "webhooks.html",
        calls=calls,
        counts=await store.counts(),
        on=visit.gateway.settings.webhook_secret is not None,
        names=await key_names(visit.gateway.database, [call.key_id for call in calls]),
    )


def _requests_asked(visit: Visit) -> tuple[RequestsAsked, LogFilter]:
    """The address's query, and which requests it means: only one's own, unless an operator asks."""
    asked = validate(RequestsAsked, {name: value for name, value in visit.query.items() if value})
    since, until = asked.times()
    principal = visit.principal
    if principal.is_operator:
        return asked, LogFilter(asked.key_id, asked.account_id, asked.model, since, until)
    return asked, LogFilter(principal.key_id, None, asked.model, since, until)

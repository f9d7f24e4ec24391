"""Batches: an account's, as its keys see them in the API; for the operator everybody's."""

from starlette.responses import Response

from gateway.batches.batch import Batch
from gateway.console import charts
from gateway.console.names import key_names
from gateway.console.visits import Visit
from gateway.errors import NotFound
from gateway.protocol.admin import Plain
from gateway.protocol.body import Query
from gateway.protocol.checks import validate

PAGE = 50


class BatchesAsked(Query):
    after: Plain | None = None


async def list_batches(visit: Visit) -> Response:
    asked = validate(BatchesAsked, {name: value for name, value in visit.query.items() if value and name != "done"})
    after = await _find(visit, asked.after) if asked.after is not None else None
    found = await visit.gateway.batches.store.page(_account_id(visit), after=after, count=PAGE + 1)
    shown = found[:PAGE]
    return visit.page(
        "batches.html",
        batches=[(batch, charts.share(_done(batch), batch.total) if batch.total else 0) for batch in shown],
        more=shown[-1].id if len(found) > PAGE else None,
        names=await key_names(visit.gateway.database, [batch.key_id for batch in shown]),
    )


async def cancel(visit: Visit) -> Response:
    """What runs ends as it does; where it has ended already, nothing happens."""
    batch = await _find(visit, visit.request.path_params["batch"])
    if batch.is_open:
        await visit.gateway.batches.cancel(batch)
    return visit.go("/console/batches?done=cancelled")


async def _find(visit: Visit, batch_id: str) -> Batch:
    """Raises NotFound."""
    batch = await visit.gateway.batches.store.get(batch_id, _account_id(visit)) if batch_id.isprintable() else None
    if batch is None:
        raise NotFound("There is no such batch.")
    return batch


def _account_id(visit: Visit) -> int | None:
    return None if visit.principal.is_operator else visit.principal.key.account_id


def _done(batch: Batch) -> int:
    return batch.tally.completed + batch.tally.failed

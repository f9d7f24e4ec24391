"""What was spent: by day, model, key, account or end user, drawn and as a table, on the page and as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from pydantic import model_validator
from starlette.responses import Response

from gateway.console import charts
from gateway.console.names import account_names, key_names
from gateway.console.visits import Visit
from gateway.protocol.admin import Day, Id, Plain
from gateway.protocol.body import Query, conflict
from gateway.protocol.checks import validate
from pricing.clock import MS_PER_DAY, start_of
from pricing.cost import Tokens
from pricing.money import Picodollars, format_usd
from pricing.request_log import LogFilter, RequestLog
from pricing.text import harmless
from pricing.usage import Dimension, Usage

DAYS_SHOWN = 30
DAYS_MAX = 400

By = Literal["day", "model", "key", "account", "user"]
TITLES: dict[By, str] = {"day": "Day", "model": "Model", "key": "Key", "account": "Account", "user": "End user"}
COLUMNS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd")


class UsageAsked(Query):
    """The page's address. Days are UTC and inclusive."""

    by: By = "day"
    since: Day | None = None
    until: Day | None = None
    model: Plain | None = None
    account_id: Id | None = None
    key_id: Id | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "UsageAsked":
        if self.first > self.last:
            raise conflict("until", f"`until` ({self.last}) is before `since` ({self.first}).")
        if (self.last - self.first).days >= DAYS_MAX:
            raise conflict("since", f"{self.first} to {self.last} are more than {DAYS_MAX} days.")
        return self

    @property
    def last(self) -> date:
        return self.until or datetime.now(UTC).date()

    @property
    def first(self) -> date:
        return self.since or self.last - timedelta(days=DAYS_SHOWN - 1)


@dataclass(frozen=True, slots=True)
class Row:
    """`name` is what is shown, `id` what a link needs."""

    name: str
    id: int | None
    requests: int
    tokens: Tokens
    cost: Picodollars


async def usage(visit: Visit) -> Response:
    asked = _asked(visit)
    rows = await totals(visit, asked)
    chart = charts.by_day({row.name: row.cost for row in rows}, asked.first, asked.last) if asked.by == "day" else None
    if asked.by == "day":
        rows.reverse()
    return visit.page(
        "usage.html",
        asked=asked,
        rows=list(zip(rows, charts.shares([row.cost for row in rows]), strict=True)),
        sum=_sum(rows),
        chart=chart,
        titles={by: title for by, title in TITLES.items() if visit.principal.is_operator or by != "account"},
        models=[model.name for model in visit.principal.models(visit.gateway.catalog)],
        query=visit.request.url.query,
    )


async def usage_csv(visit: Visit) -> Response:
    asked = _asked(visit)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([asked.by, *COLUMNS])
    for row in await totals(visit, asked):
        tokens = row.tokens
        writer.writerow(
            [harmless(row.name), row.requests, tokens.prompt, tokens.cached, tokens.completion, format_usd(row.cost)]
        )
    headers = {"content-disposition": f'attachment; filename="usage-by-{asked.by}.csv"'}
    return Response(text.getvalue(), media_type="text/csv", headers=headers)


async def totals(visit: Visit, asked: UsageAsked) -> list[Row]:
    """What was spent by whatever is asked, with all that this process has answered by now."""
    await visit.gateway.ledger.settled()
    database, principal = visit.gateway.database, visit.principal
    key_id = asked.key_id if principal.is_operator else principal.key_id
    account_id = asked.account_id if principal.is_operator else None
    if asked.by == "user":
        until = start_of(asked.last) + MS_PER_DAY
        which = LogFilter(key_id, account_id, asked.model, start_of(asked.first), until)
        return [
            Row(one.user or "not named", None, one.requests, one.tokens, one.cost)
            for one in await RequestLog(database).users(which)
        ]
    by: Dimension = asked.by
    found = await Usage(database).totals(
        (by,), since=asked.first, until=asked.last, account_id=account_id, key_id=key_id, model=asked.model
    )
    names = {
        **(await key_names(database, [one.key_id for one in found])),
        **(await account_names(database, [one.account_id for one in found])),
    }
    rows = []
    for one in found:
        row_id = one.key_id if one.key_id is not None else one.account_id
        name = one.day or one.model or (names.get(row_id, str(row_id)) if row_id is not None else "")
        rows.append(Row(name, row_id, one.requests, one.tokens, one.cost))
    return rows if by == "day" else sorted(rows, key=lambda row: -row.cost)


def _asked(visit: Visit) -> UsageAsked:
    """The address's query, without the fields that a form left empty. Raises InvalidParameter."""
    asked = validate(UsageAsked, {name: value for name, value in visit.query.items() if value})
    if asked.by == "account" and not visit.principal.is_operator:
        return asked.model_copy(update={"by": "day"})
    return asked


def _sum(rows: Sequence[Row]) -> Row:
    tokens = Tokens(
        sum(row.tokens.prompt for row in rows),
        sum(row.tokens.cached for row in rows),
        sum(row.tokens.completion for row in rows),
    )
    return Row("In all", None, sum(row.requests for row in rows), tokens, Picodollars(sum(row.cost for row in rows)))

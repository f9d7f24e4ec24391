"""The first page after signing in: what was spent, what is left, and whether it goes well."""

from datetime import UTC, date, datetime, timedelta

from starlette.responses import Response

from gateway.console import charts
from gateway.console.names import account_names
from gateway.console.visits import Visit
from pricing.accounts import Accounts
from pricing.clock import day_start, start_of, system_clock
from pricing.keys import Keys
from pricing.request_log import LogFilter, RequestLog
from pricing.usage import Usage, UsageTotal

FINISHED = "finished"
LEFT = "client_gone"
ACCOUNTS_SHOWN = 8


async def overview(visit: Visit) -> Response:
    await visit.gateway.ledger.settled()
    database, key_id = visit.gateway.database, visit.principal.key_id
    today = datetime.now(UTC).date()
    first = today - timedelta(days=29)
    usage = Usage(database)
    days = await usage.totals(("day",), since=first, until=today, key_id=key_id)
    outcomes = await RequestLog(database).outcomes(LogFilter(key_id=key_id, since=day_start(system_clock())))
    ended = sum(outcomes.values())
    return visit.page(
        "overview.html",
        today=await _total(usage, today, key_id),
        month=await _total(usage, today.replace(day=1), key_id),
        chart=charts.by_day({str(day.day): day.cost for day in days}, first, today),
        ended=ended,
        failed=ended - outcomes.get(FINISHED, 0) - outcomes.get(LEFT, 0),
        outcomes=sorted(outcomes.items(), key=lambda one: -one[1]),
        models=await _models(usage, today.replace(day=1), key_id),
        latest=await RequestLog(database).list(
            LogFilter(key_id=key_id, since=start_of(first)), count_max=ACCOUNTS_SHOWN
        ),
        **(await _operators(visit) if visit.principal.is_operator else await _own(visit)),
    )


async def _total(usage: Usage, since: date, key_id: int | None) -> UsageTotal:
    (total,) = await usage.totals((), since=since, key_id=key_id)
    return total


async def _models(usage: Usage, since: date, key_id: int | None) -> list[tuple[UsageTotal, float]]:
    found = sorted(await usage.totals(("model",), since=since, key_id=key_id), key=lambda one: -one.cost)[:6]
    return list(zip(found, charts.shares([one.cost for one in found]), strict=True))


async def _own(visit: Visit) -> dict[str, object]:
    """A key's limits."""
    key, gateway = visit.principal.key, visit.gateway
    models = [model.name for model in visit.principal.models(gateway.catalog)]
    balance = await Keys(gateway.database).balance(key.id)
    return {
        "key": key,
        "balance": balance,
        "share": balance.percent,
        "standings": await gateway.limits.standings(key, models),
        "accounts": [],
    }


async def _operators(visit: Visit) -> dict[str, object]:
    """The accounts that have the least left."""
    accounts = Accounts(visit.gateway.database)
    found = [account for account in await accounts.list() if account.suspended_at is None]
    balances = await accounts.balances([account.id for account in found])
    standing = [
        (account, balances[account.id], balances[account.id].percent)
        for account in found
        if balances[account.id].left is not None
    ]
    standing.sort(key=lambda one: -one[2])
    return {
        "accounts": standing[:ACCOUNTS_SHOWN],
        "balance": None,
        "standings": [],
        "problems": visit.gateway.problems(),
        "account_names": await account_names(visit.gateway.database, [one.id for one in found]),
    }

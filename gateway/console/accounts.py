"""Accounts, for the operator: limits, credit, keys and what they spent."""

from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.responses import Response

from gateway.console.visits import Visit
from gateway.errors import GatewayError, NotFound, from_exception
from gateway.protocol import admin as protocol
from gateway.protocol.admin import Id, Plain
from gateway.protocol.body import Query
from gateway.protocol.checks import validate
from pricing.accounts import Account, Accounts
from pricing.balance import Balance, Limit, checked_limits
from pricing.keys import Keys
from pricing.limit_text import parse_limit
from pricing.usage import Usage
from storage.errors import LedgerError

PAGE = 100


class AccountsAsked(Query):
    name: Plain | None = None
    after: Id = 0


@dataclass(frozen=True, slots=True)
class Shown:
    account: Account
    balance: Balance

    @property
    def share(self) -> int:
        """Of the fullest limit, what is spent or reserved: 0 to 100."""
        return self.balance.percent


async def list_accounts(visit: Visit, problem: GatewayError | None = None) -> Response:
    asked = validate(AccountsAsked, {k: v for k, v in visit.query.items() if v and k != "done"})
    await visit.gateway.ledger.settled()
    accounts = Accounts(visit.gateway.database)
    if asked.name is not None:
        one = await accounts.find(asked.name)
        found = [one] if one is not None else []
    else:
        found = await accounts.list(after=asked.after, count_max=PAGE + 1)
    shown = found[:PAGE]
    balances = await accounts.balances([account.id for account in shown])
    return visit.page(
        "accounts.html",
        problem.status if problem is not None else 200,
        accounts=[Shown(account, balances[account.id]) for account in shown],
        more=shown[-1].id if len(found) > PAGE else None,
        asked=asked,
        problem=problem.message if problem is not None else "",
    )


async def create(visit: Visit) -> Response:
    try:
        name = validate(protocol.Rename, {"name": visit.form.get("name", "")}).name
        accounts = Accounts(visit.gateway.database)
        account = await accounts.create(name, *limits_of(visit), actor=visit.principal.actor)
    except (GatewayError, LedgerError) as error:
        return await list_accounts(visit, from_exception(error))
    return visit.go(f"/console/accounts/{account.id}?done=account")


async def account(visit: Visit, problem: GatewayError | None = None) -> Response:
    account_id = id_of(visit)
    await visit.gateway.ledger.settled()
    database = visit.gateway.database
    accounts, keys = Accounts(database), Keys(database)
    found = await accounts.get(account_id)
    own = await keys.list(account_id=account_id, include_revoked=True, count_max=PAGE)
    balances = await keys.balances([key.id for key in own])
    today = datetime.now(UTC).date()
    (month,) = await Usage(database).totals((), since=today.replace(day=1), account_id=account_id)
    return visit.page(
        "account.html",
        problem.status if problem is not None else 200,
        shown=Shown(found, await accounts.balance(account_id)),
        keys=[(key, balances[key.id]) for key in own],
        month=month,
        models=[model.name for model in visit.principal.models(visit.gateway.catalog)],
        problem=problem.message if problem is not None else "",
    )


async def act(visit: Visit) -> Response:
    """One of the forms on an account's page."""
    account_id, action = id_of(visit), visit.request.path_params["action"]
    accounts, actor = Accounts(visit.gateway.database), visit.principal.actor
    try:
        match action:
            case "rename":
                name = validate(protocol.Rename, {"name": visit.form.get("name", "")}).name
                await accounts.rename(account_id, name, actor=actor)
                done = "renamed"
            case "limit":
                await accounts.set_limits(account_id, limits_of(visit), actor=actor)
                done = "limit"
            case "credit":
                asked: dict[str, object] = {
                    name: visit.form[name] for name in ("amount_usd", "reference") if name in visit.form
                }
                credit = validate(protocol.Credit, asked)
                await accounts.add_credit(account_id, credit.amount_usd, actor=actor, reference=credit.reference)
                done = "credit"
            case "suspend":
                await accounts.suspend(account_id, actor=actor)
                done = "suspended"
            case "resume":
                await accounts.resume(account_id, actor=actor)
                done = "resumed"
            case _:
                raise NotFound("There is no such page.")
    except NotFound:
        raise
    except (GatewayError, LedgerError) as error:
        return await account(visit, from_exception(error))
    await visit.gateway.keys.refresh()
    return visit.go(f"/console/accounts/{account_id}?done={done}")


def id_of(visit: Visit) -> int:
    found: int = visit.request.path_params["id"]
    return min(found, protocol.ID_MAX)  # there is none as large


def limits_of(visit: Visit, *, prepaid: bool = True) -> tuple[Limit, ...]:
    """Those of the form, one a line as `farebox keys create --limit` has them. Raises InvalidSetting, InvalidAmount."""
    lines = [line.strip() for line in visit.form.get("limits", "").splitlines()]
    limits = [parse_limit(line, "limits") for line in lines if line]
    return checked_limits(limits, prepaid=prepaid, most=visit.gateway.settings.limits_max)

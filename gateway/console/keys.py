"""Keys: one's own to look at; for the operator all of them, to make, change, rotate and revoke."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from starlette.responses import Response

from gateway.console.accounts import id_of, limits_of
from gateway.console.names import account_names
from gateway.console.visits import Visit
from gateway.errors import GatewayError, NotFound, from_exception
from gateway.protocol import admin as protocol
from gateway.protocol.admin import Id, Plain
from gateway.protocol.body import Query
from gateway.protocol.checks import validate
from pricing.accounts import Accounts
from pricing.key import NewKey
from pricing.keys import Keys
from storage.errors import LedgerError

PAGE = 100
RATES = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


class KeysAsked(Query):
    prefix: Plain | None = None
    account_id: Id | None = None
    include_revoked: bool = False
    after: Id = 0


async def own(visit: Visit) -> Response:
    """The key that one is signed in with."""
    gateway, key = visit.gateway, visit.principal.key
    await gateway.ledger.settled()
    balance = await Keys(gateway.database).balance(key.id)
    models = [model.name for model in visit.principal.models(gateway.catalog)]
    return visit.page(
        "own_key.html",
        key=key,
        balance=balance,
        share=balance.percent,
        standings=[] if visit.principal.is_operator else await gateway.limits.standings(key, models),
        allowed=models,
    )


async def list_keys(visit: Visit, problem: GatewayError | None = None) -> Response:
    asked = validate(KeysAsked, {k: v for k, v in visit.query.items() if v and k != "done"})
    await visit.gateway.ledger.settled()
    database = visit.gateway.database
    keys = Keys(database)
    found = await keys.list(
        account_id=asked.account_id,
        prefix=asked.prefix,
        include_revoked=asked.include_revoked,
        after=asked.after,
        count_max=PAGE + 1,
    )
    shown = found[:PAGE]
    balances = await keys.balances([key.id for key in shown])
    accounts = await Accounts(database).list()
    return visit.page(
        "keys.html",
        problem.status if problem is not None else 200,
        keys=[(key, balances[key.id]) for key in shown],
        more=shown[-1].id if len(found) > PAGE else None,
        asked=asked,
        accounts=accounts,
        account_names=await account_names(database, [key.account_id for key in shown]),
        models=_names(visit),
        problem=problem.message if problem is not None else "",
    )


async def create(visit: Visit) -> Response:
    """The secret is on the page that answers, and nowhere else ever again."""
    form = visit.form
    asked: dict[str, object] = {"name": form.get("name", ""), "terms": _terms(visit)}
    if form.get("account_id", "").isdecimal():
        asked["account_id"] = int(form["account_id"])
    if "role" in form:
        asked["role"] = form["role"]
    try:
        body = validate(protocol.NewKeyBody, asked)
        terms = replace(body.terms.terms(0), limits=limits_of(visit, prepaid=False))
        created = await Keys(visit.gateway.database).create(
            body.account_id, body.name, terms, actor=visit.principal.actor, role=body.role
        )
    except (GatewayError, LedgerError) as error:
        return await list_keys(visit, from_exception(error))
    return await _shown_once(visit, created)


async def key(visit: Visit, problem: GatewayError | None = None) -> Response:
    database = visit.gateway.database
    await visit.gateway.ledger.settled()
    keys = Keys(database)
    found = await keys.get(id_of(visit))
    balance = await keys.balance(found.id)
    return visit.page(
        "key.html",
        problem.status if problem is not None else 200,
        key=found,
        balance=balance,
        share=balance.percent,
        account=await Accounts(database).get(found.account_id),
        models=sorted({*_names(visit), *(found.terms.models or ())}),
        problem=problem.message if problem is not None else "",
    )


async def act(visit: Visit) -> Response:
    """One of the forms on a key's page."""
    key_id, action = id_of(visit), visit.request.path_params["action"]
    keys, actor = Keys(visit.gateway.database), visit.principal.actor
    try:
        match action:
            case "rename":
                name = validate(protocol.Rename, {"name": visit.form.get("name", "")}).name
                await keys.rename(key_id, name, actor=actor)
                done = "renamed"
            case "terms":
                asked = validate(protocol.Terms, _terms(visit)).terms(0)
                tier = (await keys.get(key_id)).terms.tier
                limits = limits_of(visit, prepaid=False)
                await keys.set_terms(key_id, replace(asked, limits=limits, tier=tier), actor=actor)
                done = "terms"
            case "rotate":
                grace = validate(protocol.Rotation, {"grace_seconds": _whole(visit.form.get("grace_seconds", "0"))})
                rotated = await keys.rotate(key_id, grace_ms=grace.grace_seconds * 1000, actor=actor)
                return await _shown_once(visit, rotated)
            case "revoke":
                await keys.revoke(key_id, actor=actor)
                done = "revoked"
            case _:
                raise NotFound("There is no such page.")
    except NotFound:
        raise
    except (GatewayError, LedgerError) as error:
        return await key(visit, from_exception(error))
    await visit.gateway.keys.refresh()
    return visit.go(f"/console/keys/{key_id}?done={done}")


def _names(visit: Visit) -> list[str]:
    """Of the models that a key can be held to."""
    return [model.name for model in visit.principal.models(visit.gateway.catalog)]


async def _shown_once(visit: Visit, created: NewKey) -> Response:
    await visit.gateway.keys.refresh()
    return visit.page("new_key.html", key=created.key, secret=created.secret)


def _terms(visit: Visit) -> dict[str, object]:
    """The fields of a key's terms, as the admin API has them; a day means its end, in UTC."""
    form = visit.form
    terms: dict[str, object] = {name: _whole(form[name]) for name in RATES if name in form}
    if "models" in form:
        terms["models"] = form["models"].split("\n")
    if "expires_on" in form:
        terms["expires_at"] = _end_of(form["expires_on"])
    return terms


def _end_of(day: str) -> str:
    try:
        after = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        return day  # what is wrong with it, the check says
    return after.isoformat()


def _whole(text: str) -> object:
    """The number, or the text, of which the check says what is wrong."""
    return int(text) if text.isdecimal() and len(text) < 20 else text

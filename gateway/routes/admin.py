"""`/admin/*`: accounts, keys, money and the ledger, for an admin key (`gateway.request.auth` lets in no other)."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from gateway.protocol import admin as protocol
from gateway.protocol.admin_limits import LimitBody, Limits
from gateway.protocol.operation import JSON, Operation, documented
from gateway.routes import admin_reports
from gateway.routes.admin_common import TAG, actor_of, gateway_of, id_of, page, read_body_as, read_query
from gateway.schemas import admin as answers
from pricing.accounts import Account, Accounts
from pricing.key import Key, NewKey
from pricing.keys import Keys


@documented(
    Operation(
        TAG,
        "Open an account",
        body=protocol.NewAccount,
        answers={JSON: answers.AccountFields},
        status=201,
        errors=(409,),
    )
)
async def create_account(request: Request) -> JSONResponse:
    body = await read_body_as(request, protocol.NewAccount)
    account = await _accounts(request).create(body.name, *body.wanted(_limits_max(request)), actor=actor_of(request))
    return await _account(request, account, 201)


@documented(Operation(TAG, "Accounts, page by page", query=protocol.AccountPage, answers={JSON: answers.AccountList}))
async def list_accounts(request: Request) -> JSONResponse:
    """In the order of their ids; `?name=` gives the one of that name, or none."""
    query = read_query(request, protocol.AccountPage)
    accounts = _accounts(request)
    if query.name is not None:
        one = await accounts.find(query.name)
        found = [one] if one is not None else []
    else:
        found = await accounts.list(after=query.after, count_max=query.limit + 1)
    await gateway_of(request).ledger.settled()
    balances = await accounts.balances([account.id for account in found])
    return page([protocol.account_fields(one, balances[one.id]) for one in found], query.limit)


@documented(Operation(TAG, "One account", answers={JSON: answers.AccountFields}))
async def get_account(request: Request) -> JSONResponse:
    return await _account(request, await _accounts(request).get(id_of(request)))


@documented(
    Operation(TAG, "Rename an account", body=protocol.Rename, answers={JSON: answers.AccountFields}, errors=(409,))
)
async def rename_account(request: Request) -> JSONResponse:
    body = await read_body_as(request, protocol.Rename)
    return await _account(request, await _accounts(request).rename(id_of(request), body.name, actor=actor_of(request)))


@documented(
    Operation(
        TAG,
        "Set what an account may spend, by one limit",
        "Replaces all its limits by this one.",
        body=LimitBody,
        answers={JSON: answers.AccountFields},
    )
)
async def set_account_limit(request: Request) -> JSONResponse:
    body = await read_body_as(request, LimitBody)
    accounts = _accounts(request)
    await accounts.set_limit(id_of(request), body.limit(), actor=actor_of(request))
    return await _account(request, await accounts.get(id_of(request)))


@documented(
    Operation(
        TAG,
        "Set an account's share of an engine that many want",
        body=protocol.Weight,
        answers={JSON: answers.AccountFields},
    )
)
async def set_account_weight(request: Request) -> JSONResponse:
    body = await read_body_as(request, protocol.Weight)
    account = await _accounts(request).set_weight(id_of(request), body.weight, actor=actor_of(request))
    await gateway_of(request).keys.refresh()
    return await _account(request, account)


@documented(
    Operation(
        TAG,
        "Set what an account may spend",
        "Replaces all its limits; an empty list takes them away. All of them hold at the same time.",
        body=Limits,
        answers={JSON: answers.AccountFields},
    )
)
async def set_account_limits(request: Request) -> JSONResponse:
    body = await read_body_as(request, Limits)
    accounts = _accounts(request)
    await accounts.set_limits(id_of(request), body.wanted(_limits_max(request)), actor=actor_of(request))
    return await _account(request, await accounts.get(id_of(request)))


@documented(
    Operation(
        TAG,
        "Add money to a prepaid account",
        "The same `reference` adds its credit once only.",
        body=protocol.Credit,
        answers={JSON: answers.AccountFields},
        errors=(409,),
    )
)
async def add_credit(request: Request) -> JSONResponse:
    """The same `reference` adds its credit once only."""
    body = await read_body_as(request, protocol.Credit)
    accounts = _accounts(request)
    await accounts.add_credit(id_of(request), body.amount_usd, actor=actor_of(request), reference=body.reference)
    return await _account(request, await accounts.get(id_of(request)))


@documented(Operation(TAG, "Suspend an account: its keys stop working", answers={JSON: answers.AccountFields}))
async def suspend_account(request: Request) -> JSONResponse:
    account = await _accounts(request).suspend(id_of(request), actor=actor_of(request))
    await gateway_of(request).keys.refresh()
    return await _account(request, account)


@documented(Operation(TAG, "Resume an account", answers={JSON: answers.AccountFields}))
async def resume_account(request: Request) -> JSONResponse:
    account = await _accounts(request).resume(id_of(request), actor=actor_of(request))
    await gateway_of(request).keys.refresh()
    return await _account(request, account)


@documented(
    Operation(
        TAG,
        "Make a key; its secret is in this answer only",
        body=protocol.NewKeyBody,
        answers={JSON: answers.NewKeyFields},
        status=201,
        errors=(409,),
    )
)
async def create_key(request: Request) -> JSONResponse:
    """The answer holds the secret, this once."""
    body = await read_body_as(request, protocol.NewKeyBody)
    created = await _keys(request).create(
        body.account_id, body.name, body.terms.terms(_limits_max(request)), actor=actor_of(request), role=body.role
    )
    return await _new_key(request, created, 201)


@documented(Operation(TAG, "Keys, page by page", query=protocol.KeyPage, answers={JSON: answers.KeyList}))
async def list_keys(request: Request) -> JSONResponse:
    """In the order of their ids; `?prefix=` finds a key by the start of its secret."""
    query = read_query(request, protocol.KeyPage)
    keys = _keys(request)
    found = await keys.list(
        account_id=query.account_id,
        prefix=query.prefix,
        include_revoked=query.include_revoked,
        after=query.after,
        count_max=query.limit + 1,
    )
    await gateway_of(request).ledger.settled()
    balances = await keys.balances([key.id for key in found])
    return page([protocol.key_fields(key, balances[key.id]) for key in found], query.limit)


@documented(Operation(TAG, "One key", answers={JSON: answers.KeyFields}))
async def get_key(request: Request) -> JSONResponse:
    return await _key(request, await _keys(request).get(id_of(request)))


@documented(Operation(TAG, "Rename a key", body=protocol.Rename, answers={JSON: answers.KeyFields}, errors=(409,)))
async def rename_key(request: Request) -> JSONResponse:
    body = await read_body_as(request, protocol.Rename)
    return await _key(request, await _keys(request).rename(id_of(request), body.name, actor=actor_of(request)))


@documented(
    Operation(
        TAG,
        "Set what a key may do",
        "Replaces all terms: what is left out is not limited any more.",
        body=protocol.Terms,
        answers={JSON: answers.KeyFields},
    )
)
async def set_key_terms(request: Request) -> JSONResponse:
    """Replaces all terms: what is left out is not limited any more."""
    body = await read_body_as(request, protocol.Terms)
    terms = body.terms(_limits_max(request))
    return await _key(request, await _keys(request).set_terms(id_of(request), terms, actor=actor_of(request)))


@documented(
    Operation(
        TAG,
        "Give a key a new secret; it is in this answer only",
        "The old secret works for `grace_seconds` more.",
        body=protocol.Rotation,
        answers={JSON: answers.NewKeyFields},
        errors=(409,),
    )
)
async def rotate_key(request: Request) -> JSONResponse:
    """A new secret, shown this once; the old one works for `grace_seconds` more."""
    body = await read_body_as(request, protocol.Rotation)
    created = await _keys(request).rotate(id_of(request), grace_ms=body.grace_seconds * 1000, actor=actor_of(request))
    return await _new_key(request, created, 200)


@documented(Operation(TAG, "Revoke a key", answers={JSON: answers.KeyFields}))
async def revoke_key(request: Request) -> JSONResponse:
    return await _key(request, await _keys(request).revoke(id_of(request), actor=actor_of(request)))


def routes() -> list[BaseRoute]:
    """All of them."""
    return [
        Route("/admin/accounts", create_account, methods=["POST"]),
        Route("/admin/accounts", list_accounts),
        Route("/admin/accounts/{id:row}", get_account),
        Route("/admin/accounts/{id:row}", rename_account, methods=["PATCH"]),
        Route("/admin/accounts/{id:row}/limit", set_account_limit, methods=["PUT"]),
        Route("/admin/accounts/{id:row}/limits", set_account_limits, methods=["PUT"]),
        Route("/admin/accounts/{id:row}/weight", set_account_weight, methods=["PUT"]),
        Route("/admin/accounts/{id:row}/credits", add_credit, methods=["POST"]),
        Route("/admin/accounts/{id:row}/suspend", suspend_account, methods=["POST"]),
        Route("/admin/accounts/{id:row}/resume", resume_account, methods=["POST"]),
        Route("/admin/keys", create_key, methods=["POST"]),
        Route("/admin/keys", list_keys),
        Route("/admin/keys/{id:row}", get_key),
        Route("/admin/keys/{id:row}", rename_key, methods=["PATCH"]),
        Route("/admin/keys/{id:row}/terms", set_key_terms, methods=["PUT"]),
        Route("/admin/keys/{id:row}/rotate", rotate_key, methods=["POST"]),
        Route("/admin/keys/{id:row}/revoke", revoke_key, methods=["POST"]),
        Route("/admin/usage", admin_reports.get_usage),
        Route("/admin/audit", admin_reports.list_audit),
        Route("/admin/ledger", admin_reports.export_ledger),
    ]


async def _account(request: Request, account: Account, status: int = 200) -> JSONResponse:
    await gateway_of(request).ledger.settled()
    balance = await _accounts(request).balance(account.id)
    return JSONResponse(protocol.account_fields(account, balance), status_code=status)


async def _key(request: Request, key: Key) -> JSONResponse:
    await gateway_of(request).keys.refresh()
    await gateway_of(request).ledger.settled()
    return JSONResponse(protocol.key_fields(key, await _keys(request).balance(key.id)))


async def _new_key(request: Request, created: NewKey, status: int) -> JSONResponse:
    await gateway_of(request).keys.refresh()
    fields = protocol.key_fields(created.key, await _keys(request).balance(created.key.id))
    return JSONResponse({**fields, "secret": created.secret}, status_code=status, headers={"cache-control": "no-store"})


def _limits_max(request: Request) -> int:
    return gateway_of(request).settings.limits_max


def _accounts(request: Request) -> Accounts:
    return Accounts(gateway_of(request).database)


def _keys(request: Request) -> Keys:
    return Keys(gateway_of(request).database)

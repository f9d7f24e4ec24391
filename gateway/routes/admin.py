"""`/admin/*`: accounts, keys, money and the ledger, for an admin key (`gateway.auth` lets in no other)."""

import json
import tempfile
from collections.abc import Iterator
from typing import IO, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from gateway.exchange import read_body
from gateway.protocol import admin as protocol
from gateway.protocol.checks import Body, parse_json, validate
from gateway.routes.usage import report
from gateway.state import Gateway
from pricing.accounts import Account, Accounts
from pricing.audit import AuditLog
from pricing.export import ExportFilter, export_csv, export_parquet
from pricing.key import Key, NewKey
from pricing.keys import Keys

CHUNK_BYTES = 1 << 16
B = TypeVar("B", bound=Body)


async def create_account(request: Request) -> JSONResponse:
    body = await _body(request, protocol.NewAccount)
    account = await _accounts(request).create(body.name, body.limit.limit(), actor=_actor(request))
    return await _account(request, account, 201)


async def list_accounts(request: Request) -> JSONResponse:
    """In the order of their ids; `?name=` gives the one of that name, or none."""
    query = _query(request, protocol.AccountPage)
    accounts = _accounts(request)
    if query.name is not None:
        one = await accounts.find(query.name)
        found = [one] if one is not None else []
    else:
        found = await accounts.list(after=query.after, count_max=query.limit + 1)
    balances = await accounts.balances([account.id for account in found])
    return _page([protocol.account_fields(one, balances[one.id]) for one in found], query.limit)


async def get_account(request: Request) -> JSONResponse:
    return await _account(request, await _accounts(request).get(_id(request)))


async def rename_account(request: Request) -> JSONResponse:
    body = await _body(request, protocol.Rename)
    return await _account(request, await _accounts(request).rename(_id(request), body.name, actor=_actor(request)))


async def set_account_limit(request: Request) -> JSONResponse:
    body = await _body(request, protocol.LimitBody)
    accounts = _accounts(request)
    await accounts.set_limit(_id(request), body.limit(), actor=_actor(request))
    return await _account(request, await accounts.get(_id(request)))


async def add_credit(request: Request) -> JSONResponse:
    """The same `reference` adds its credit once only."""
    body = await _body(request, protocol.Credit)
    accounts = _accounts(request)
    await accounts.add_credit(_id(request), body.amount_usd, actor=_actor(request), reference=body.reference)
    return await _account(request, await accounts.get(_id(request)))


async def suspend_account(request: Request) -> JSONResponse:
    account = await _accounts(request).suspend(_id(request), actor=_actor(request))
    await _gateway(request).keys.refresh()
    return await _account(request, account)


async def resume_account(request: Request) -> JSONResponse:
    account = await _accounts(request).resume(_id(request), actor=_actor(request))
    await _gateway(request).keys.refresh()
    return await _account(request, account)


async def create_key(request: Request) -> JSONResponse:
    """The answer holds the secret, this once."""
    body = await _body(request, protocol.NewKeyBody)
    created = await _keys(request).create(
        body.account_id, body.name, body.terms.terms(), actor=_actor(request), role=body.role
    )
    return await _new_key(request, created, 201)


async def list_keys(request: Request) -> JSONResponse:
    """In the order of their ids; `?prefix=` finds a key by the start of its secret."""
    query = _query(request, protocol.KeyPage)
    keys = _keys(request)
    found = await keys.list(
        account_id=query.account_id,
        prefix=query.prefix,
        include_revoked=query.include_revoked,
        after=query.after,
        count_max=query.limit + 1,
    )
    balances = await keys.balances([key.id for key in found])
    return _page([protocol.key_fields(key, balances[key.id]) for key in found], query.limit)


async def get_key(request: Request) -> JSONResponse:
    return await _key(request, await _keys(request).get(_id(request)))


async def rename_key(request: Request) -> JSONResponse:
    body = await _body(request, protocol.Rename)
    return await _key(request, await _keys(request).rename(_id(request), body.name, actor=_actor(request)))


async def set_key_terms(request: Request) -> JSONResponse:
    """Replaces all terms: what is left out is not limited any more."""
    body = await _body(request, protocol.Terms)
    return await _key(request, await _keys(request).set_terms(_id(request), body.terms(), actor=_actor(request)))


async def rotate_key(request: Request) -> JSONResponse:
    """A new secret, shown this once; the old one works for `grace_seconds` more."""
    body = await _body(request, protocol.Rotation)
    created = await _keys(request).rotate(_id(request), grace_ms=body.grace_seconds * 1000, actor=_actor(request))
    return await _new_key(request, created, 200)


async def revoke_key(request: Request) -> JSONResponse:
    return await _key(request, await _keys(request).revoke(_id(request), actor=_actor(request)))


async def get_usage(request: Request) -> Response:
    """Totals by any of day, account, key and model."""
    query = _query(request, protocol.AdminUsageQuery)
    return await report(request, query, account_id=query.account_id, key_id=query.key_id)


async def list_audit(request: Request) -> JSONResponse:
    """The latest changes first; `?before=` goes on from a page's `next`."""
    query = _query(request, protocol.AuditPage)
    records = await AuditLog(_gateway(request).database).list(
        account_id=query.account_id, key_id=query.key_id, before=query.before, count_max=query.limit + 1
    )
    return _page([protocol.audit_fields(record, json.loads(record.detail)) for record in records], query.limit)


async def export_ledger(request: Request) -> StreamingResponse:
    """Every entry, streamed: CSV page by page, Parquet through a temporary file (its directory comes last)."""
    query = _query(request, protocol.ExportQuery)
    which = ExportFilter(query.since or 0, query.until, query.account_id, query.key_id)
    database = _gateway(request).database
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


def routes() -> list[BaseRoute]:
    """All of them."""
    return [
        Route("/admin/accounts", create_account, methods=["POST"]),
        Route("/admin/accounts", list_accounts),
        Route("/admin/accounts/{id:int}", get_account),
        Route("/admin/accounts/{id:int}", rename_account, methods=["PATCH"]),
        Route("/admin/accounts/{id:int}/limit", set_account_limit, methods=["PUT"]),
        Route("/admin/accounts/{id:int}/credits", add_credit, methods=["POST"]),
        Route("/admin/accounts/{id:int}/suspend", suspend_account, methods=["POST"]),
        Route("/admin/accounts/{id:int}/resume", resume_account, methods=["POST"]),
        Route("/admin/keys", create_key, methods=["POST"]),
        Route("/admin/keys", list_keys),
        Route("/admin/keys/{id:int}", get_key),
        Route("/admin/keys/{id:int}", rename_key, methods=["PATCH"]),
        Route("/admin/keys/{id:int}/terms", set_key_terms, methods=["PUT"]),
        Route("/admin/keys/{id:int}/rotate", rotate_key, methods=["POST"]),
        Route("/admin/keys/{id:int}/revoke", revoke_key, methods=["POST"]),
        Route("/admin/usage", get_usage),
        Route("/admin/audit", list_audit),
        Route("/admin/ledger", export_ledger),
    ]


async def _body(request: Request, kind: type[B]) -> B:
    """The JSON body; an empty one counts as {}."""
    raw = await read_body(request.headers, request.receive, _gateway(request).settings.body_bytes_max)
    return validate(kind, parse_json(raw or b"{}"), {})


def _query(request: Request, kind: type[B]) -> B:
    return validate(kind, dict(request.query_params), {})


def _page(data: list[dict[str, object]], limit: int) -> JSONResponse:
    """A page of one more row than asked for says by it that there are more; `next` is the cursor to go on from."""
    page = data[:limit]
    more = len(data) > limit
    return JSONResponse(
        {"object": "list", "data": page, "has_more": more, "next": str(page[-1]["id"]) if more else None}
    )


async def _account(request: Request, account: Account, status: int = 200) -> JSONResponse:
    balance = await _accounts(request).balance(account.id)
    return JSONResponse(protocol.account_fields(account, balance), status_code=status)


async def _key(request: Request, key: Key) -> JSONResponse:
    await _gateway(request).keys.refresh()
    return JSONResponse(protocol.key_fields(key, await _keys(request).balance(key.id)))


async def _new_key(request: Request, created: NewKey, status: int) -> JSONResponse:
    await _gateway(request).keys.refresh()
    fields = protocol.key_fields(created.key, await _keys(request).balance(created.key.id))
    return JSONResponse({**fields, "secret": created.secret}, status_code=status, headers={"cache-control": "no-store"})


def _sent(spool: IO[bytes]) -> Iterator[bytes]:
    with spool:
        spool.seek(0)
        while chunk := spool.read(CHUNK_BYTES):
            yield chunk


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def _accounts(request: Request) -> Accounts:
    return Accounts(_gateway(request).database)


def _keys(request: Request) -> Keys:
    return Keys(_gateway(request).database)


def _id(request: Request) -> int:
    found: int = request.path_params["id"]
    return min(found, protocol.ID_MAX)  # there is none as large


def _actor(request: Request) -> str:
    key: Key = request.scope["farebox.key"]
    return f"admin key {key.id} ({key.prefix})"

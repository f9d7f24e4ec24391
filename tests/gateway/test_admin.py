"""`/admin/*`, and what a client may know of its own key."""

import asyncio
import csv
import io
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pyarrow.parquet
import pytest

from engine.script import RequestScript, Script, emit
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers

CHAT = "/v1/chat/completions"
SCRIPT = Script((RequestScript((emit("one two three"),)),))


@asynccontextmanager
async def administered(gateway_server: GatewayServers) -> AsyncIterator[tuple[GatewayServer, httpx.AsyncClient]]:
    secret = f"admin-{secrets.token_hex(16)}"
    async with gateway_server(SCRIPT, admin_key=secret) as server, server.client(secret) as admin:
        yield server, admin


async def made(admin: httpx.AsyncClient, path: str, **body: object) -> dict[str, object]:
    answer = await admin.post(f"/admin/{path}", json=body)
    assert answer.status_code in (200, 201), answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


async def ask(server: GatewayServer, secret: object, model: str = DEMO) -> httpx.Response:
    async with server.client(str(secret)) as client:
        return await client.post(CHAT, json={"model": model, "messages": [{"role": "user", "content": "hello"}]})


async def test_an_account_is_made_listed_renamed_and_limited(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (_, admin):
        account = await made(admin, "accounts", name="acme", limit={"kind": "month", "amount_usd": "25.00"})
        assert account["limit"] == {"kind": "month", "amount_usd": "25.00"}
        balance = account["balance"]
        assert isinstance(balance, dict)
        assert (balance["spent_usd"], balance["left_usd"]) == ("0.00", "25.00")
        path = f"/admin/accounts/{account['id']}"
        renamed = await admin.patch(path, json={"name": "acme corp"})
        assert renamed.json()["name"] == "acme corp"
        limited = await admin.put(f"{path}/limit", json={"kind": "none"})
        assert limited.json()["limit"] == {"kind": "none", "amount_usd": None}
        assert (await admin.get(path)).json() == limited.json()
        found = (await admin.get("/admin/accounts", params={"name": "acme corp"})).json()["data"]
        assert [one["id"] for one in found] == [account["id"]]
        assert (await admin.get("/admin/accounts", params={"name": "acme"})).json()["data"] == []


async def test_credit_is_added_once_for_each_reference(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (_, admin):
        account = await made(admin, "accounts", name="acme", limit={"kind": "prepaid", "amount_usd": "1.00"})
        for _ in range(2):
            after = await made(admin, f"accounts/{account['id']}/credits", amount_usd="2.50", reference="invoice-7")
        balance = after["balance"]
        assert isinstance(balance, dict)
        assert balance["left_usd"] == "3.50"


async def test_a_suspended_accounts_keys_stop_at_once_and_come_back(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (server, admin):
        account = await made(admin, "accounts", name="acme")
        key = await made(admin, "keys", account_id=account["id"], name="one")
        assert (await ask(server, key["secret"])).status_code == 200
        suspended = await made(admin, f"accounts/{account['id']}/suspend")
        assert suspended["suspended_at"] is not None
        assert (await ask(server, key["secret"])).status_code == 401
        await made(admin, f"accounts/{account['id']}/resume")
        assert (await ask(server, key["secret"])).status_code == 200


async def test_a_keys_terms_hold_from_the_next_request_on(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (server, admin):
        account = await made(admin, "accounts", name="acme")
        key = await made(admin, "keys", account_id=account["id"], name="one", terms={"models": [DEMO]})
        assert (await ask(server, key["secret"], LLAMA2)).status_code == 403
        terms = {
            "models": [LLAMA2],
            "requests_per_minute": 1,
            "limit": {"kind": "day", "amount_usd": "5.00"},
            "expires_at": "2099-01-31T00:00:00+01:00",
        }
        changed = (await admin.put(f"/admin/keys/{key['id']}/terms", json=terms)).json()["terms"]
        assert changed["expires_at"] == "2099-01-30T23:00:00.000Z"
        assert changed["limit"] == {"kind": "day", "amount_usd": "5.00"}
        assert [(await ask(server, key["secret"], LLAMA2)).status_code for _ in range(2)] == [200, 429]


async def test_a_rotated_key_works_with_both_secrets_for_the_grace(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (server, admin):
        account = await made(admin, "accounts", name="acme")
        key = await made(admin, "keys", account_id=account["id"], name="one")
        rotated = await made(admin, f"keys/{key['id']}/rotate", grace_seconds=60)
        assert rotated["previous_secret_until"] is not None
        for secret in (key["secret"], rotated["secret"]):
            assert (await ask(server, secret)).status_code == 200
        again = await made(admin, f"keys/{key['id']}/rotate")
        assert (await ask(server, rotated["secret"])).status_code == 401
        assert (await ask(server, again["secret"])).status_code == 200


async def test_a_revoked_key_stops_and_is_listed_only_on_request(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (server, admin):
        account = await made(admin, "accounts", name="acme")
        key = await made(admin, "keys", account_id=account["id"], name="one")
        revoked = await made(admin, f"keys/{key['id']}/revoke")
        assert revoked["revoked_at"] is not None
        assert (await ask(server, key["secret"])).status_code == 401
        only = {"account_id": str(account["id"])}
        assert (await admin.get("/admin/keys", params=only)).json()["data"] == []
        all_of_them = (await admin.get("/admin/keys", params={**only, "include_revoked": "true"})).json()["data"]
        assert [one["id"] for one in all_of_them] == [key["id"]]


async def test_a_key_is_found_by_the_start_of_its_secret(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (_, admin):
        account = await made(admin, "accounts", name="acme")
        key = await made(admin, "keys", account_id=account["id"], name="one")
        found = (await admin.get("/admin/keys", params={"prefix": str(key["secret"])[:8]})).json()["data"]
        assert [one["id"] for one in found] == [key["id"]]


async def test_a_secret_is_in_no_answer_but_the_one_that_makes_it(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (server, admin):
        account = await made(admin, "accounts", name="acme")
        created = await admin.post("/admin/keys", json={"account_id": account["id"], "name": "one"})
        assert created.headers["cache-control"] == "no-store"
        secret = created.json()["secret"]
        path = f"/admin/keys/{created.json()['id']}"
        await ask(server, secret)
        await server.entries()
        answers = [
            await admin.get(path),
            await admin.get("/admin/keys"),
            await admin.patch(path, json={"name": "two"}),
            await admin.put(f"{path}/terms", json={}),
            await admin.get("/admin/audit"),
            await admin.get("/admin/ledger"),
            await admin.get("/admin/usage"),
            await admin.post(f"{path}/revoke"),
            await admin.get("/metrics"),
        ]
        for answer in answers:
            assert answer.status_code == 200
            assert secret not in answer.text
            assert secret[len(created.json()["prefix"]) :] not in answer.text


async def test_pages_go_on_from_their_cursor(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (_, admin):
        for number in range(5):
            await made(admin, "accounts", name=f"acme {number}")
        names: list[str] = []
        query = {"limit": "2"}
        while True:
            page = (await admin.get("/admin/accounts", params=query)).json()
            names += [one["name"] for one in page["data"]]
            if not page["has_more"]:
                break
            query["after"] = page["next"]
        assert [name for name in names if name.startswith("acme")] == [f"acme {number}" for number in range(5)]
        assert len(names) == len(set(names))


async def test_the_audit_log_says_who_changed_what(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (_, admin):
        account = await made(admin, "accounts", name="acme")
        await admin.patch(f"/admin/accounts/{account['id']}", json={"name": "acme corp"})
        records = (await admin.get("/admin/audit", params={"account_id": str(account["id"])})).json()["data"]
        assert [record["action"] for record in records] == ["account.rename", "account.create"]
        assert records[0]["changes"] == {"name": {"from": "acme", "to": "acme corp"}}
        (own,) = (await admin.get("/admin/keys", params={"prefix": "admi"})).json()["data"]
        assert records[0]["actor"] == f"admin key {own['id']} ({own['prefix']})"
        first = {"account_id": str(account["id"]), "limit": "1"}
        page = (await admin.get("/admin/audit", params=first)).json()
        rest = (await admin.get("/admin/audit", params={**first, "before": page["next"]})).json()
        assert [record["action"] for record in rest["data"]] == ["account.create"]


async def test_usage_and_export_hold_what_was_charged(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (server, admin):
        account = await made(admin, "accounts", name="acme")
        key = await made(admin, "keys", account_id=account["id"], name="one")
        ids = [(await ask(server, key["secret"])).json()["id"] for _ in range(3)]
        await server.entries()
        query = {"by": "key,model", "account_id": str(account["id"])}
        usage = (await admin.get("/admin/usage", params=query)).json()
        (row,) = usage["data"]
        assert (row["key_id"], row["model"], row["requests"], row["completion_tokens"]) == (key["id"], DEMO, 3, 9)
        assert row["cost_usd"] == usage["total"]["cost_usd"]
        only = {"key_id": str(key["id"])}
        exported = list(csv.DictReader(io.StringIO((await admin.get("/admin/ledger", params=only)).text)))
        assert {entry["request_id"] for entry in exported} == set(ids)
        parquet = await admin.get("/admin/ledger", params={**only, "format": "parquet"})
        table = pyarrow.parquet.read_table(io.BytesIO(parquet.content))
        assert set(table.column("request_id").to_pylist()) == set(ids)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "accounts", {"name": "default"}, 409, "already_exists"),
        ("POST", "accounts", {"name": " x"}, 422, "invalid_parameter"),
        ("POST", "accounts", {}, 422, "invalid_parameter"),
        ("POST", "accounts", {"name": "x", "color": "red"}, 422, "invalid_parameter"),
        ("POST", "accounts", {"name": "x", "limit": {"kind": "fortnight"}}, 422, "invalid_parameter"),
        (
            "POST",
            "accounts",
            {"name": "x", "limit": {"kind": "week", "time_zone": "Mars/Olympus"}},
            422,
            "invalid_parameter",
        ),
        ("POST", "accounts", {"name": "x", "limit": {"kind": "day", "amount_usd": 5}}, 422, "invalid_parameter"),
        ("POST", "accounts", {"name": "x", "limit": {"kind": "day", "amount_usd": "-5"}}, 422, "invalid_parameter"),
        ("POST", "accounts", {"name": "x", "limit": {"kind": "none", "amount_usd": "5"}}, 422, "invalid_parameter"),
        ("POST", "accounts/1/credits", {"amount_usd": "1,000"}, 422, "invalid_parameter"),
        ("POST", "accounts/1/credits", {"amount_usd": "1"}, 422, "invalid_parameter"),
        ("GET", "accounts/999", None, 404, "not_found"),
        ("GET", f"accounts/{10**30}", None, 404, "not_found"),
        ("PATCH", "accounts/999", {"name": "x"}, 404, "not_found"),
        ("DELETE", "accounts/1", None, 405, "method_not_allowed"),
        ("GET", "accounts?limit=0", None, 422, "invalid_parameter"),
        ("GET", "accounts?colour=red", None, 422, "invalid_parameter"),
        ("GET", "accounts?name=%00", None, 422, "invalid_parameter"),
        ("POST", "keys", {"account_id": 999, "name": "x"}, 404, "not_found"),
        ("POST", "keys", {"account_id": "1", "name": "x"}, 422, "invalid_parameter"),
        ("POST", "keys", {"account_id": 10**30, "name": "x"}, 422, "invalid_parameter"),
        (
            "POST",
            "keys",
            {"account_id": 1, "name": "x", "terms": {"requests_per_minute": -1}},
            422,
            "invalid_parameter",
        ),
        ("POST", "keys", {"account_id": 1, "name": "x", "terms": {"expires_at": "2027"}}, 422, "invalid_parameter"),
        (
            "POST",
            "keys",
            {"account_id": 1, "name": "x", "terms": {"limit": {"kind": "prepaid", "amount_usd": "1"}}},
            422,
            "invalid_parameter",
        ),
        *(
            ("POST", "keys", {"account_id": 1, "name": "x", "terms": terms}, 422, "invalid_parameter")
            for terms in (
                {"expires_at": "2020-01-01T00:00:00Z"},
                {"models": [" farebox/demo"]},
                {"models": [""]},
                {"limit": {"kind": "day", "amount_usd": "-5"}},
            )
        ),
        ("PUT", "keys/1/terms", {"expires_at": "2020-01-01T00:00:00Z"}, 422, "invalid_parameter"),
        ("GET", "keys?prefix=", None, 422, "invalid_parameter"),
        ("GET", "keys/999", None, 404, "not_found"),
        ("POST", "keys/999/rotate", {}, 404, "not_found"),
        ("POST", "keys/1/rotate", {"grace_seconds": -1}, 422, "invalid_parameter"),
        ("GET", "usage?by=colour", None, 422, "invalid_parameter"),
        ("GET", "usage?since=2026-12-01&until=2026-11-01", None, 422, "invalid_parameter"),
        ("GET", "ledger?format=xml", None, 422, "invalid_parameter"),
        ("GET", "nothing", None, 404, "not_found"),
    ],
)
async def test_what_is_wrong_is_said_in_the_one_shape(
    gateway_server: GatewayServers, method: str, path: str, body: dict[str, object] | None, status: int, code: str
) -> None:
    async with administered(gateway_server) as (_, admin):
        answer = await admin.request(method, f"/admin/{path}", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
        assert len(answer.json()["error"]["message"]) > 20


async def test_a_clients_key_sees_nothing_of_admin_and_an_admins_key_generates_nothing(
    gateway_server: GatewayServers,
) -> None:
    async with administered(gateway_server) as (server, admin):
        async with server.client() as client:
            assert (await client.get("/admin/accounts")).status_code == 404
        assert (await admin.post(CHAT, json={})).status_code == 404


# A client's own usage


async def test_a_client_sees_its_own_usage_as_json_and_csv(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (server, admin):
        other = await made(admin, "keys", account_id=1, name="other")
        await ask(server, other["secret"])
        for model in (DEMO, DEMO, LLAMA2):
            await ask(server, server.secret, model)
        await server.entries()
        async with server.client() as client:
            usage = (await client.get("/v1/usage")).json()
            assert [(row["model"], row["requests"]) for row in usage["data"]] == [(DEMO, 2), (LLAMA2, 1)]
            assert usage["total"]["requests"] == 3
            one_model = (await client.get("/v1/usage", params={"by": "model", "model": DEMO})).json()
            assert [row["requests"] for row in one_model["data"]] == [2]
            none = (await client.get("/v1/usage", params={"until": "2020-01-01"})).json()
            assert (none["data"], none["total"]["requests"]) == ([], 0)
            for asked in (
                await client.get("/v1/usage", params={"format": "csv", "by": "model"}),
                await client.get("/v1/usage", params={"by": "model"}, headers={"accept": "text/csv"}),
            ):
                assert asked.headers["content-type"].startswith("text/csv")
                table = list(csv.DictReader(io.StringIO(asked.text)))
                assert [(row["model"], row["requests"]) for row in table] == [(DEMO, "2"), (LLAMA2, "1")]
            assert (await client.get("/v1/usage", params={"by": "account"})).status_code == 422


async def test_a_client_can_look_up_its_own_requests_only(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (server, admin):
        answer = (await ask(server, server.secret)).json()
        await server.entries()
        other = await made(admin, "keys", account_id=1, name="other")
        async with server.client() as client, server.client(str(other["secret"])) as stranger:
            record = (await client.get(f"/v1/requests/{answer['id']}")).json()
            assert (record["id"], record["state"], record["outcome"]) == (answer["id"], "settled", "finished")
            assert record["usage"]["completion_tokens"] == answer["usage"]["completion_tokens"] == 3
            assert float(record["cost_usd"]) == answer["usage"]["estimated_cost"]
            assert (await stranger.get(f"/v1/requests/{answer['id']}")).status_code == 404
            assert (await client.get("/v1/requests/chatcmpl-none")).status_code == 404
            assert (await client.get("/v1/requests/%00")).status_code == 404


async def test_key_changes_made_at_the_same_time_all_happen(gateway_server: GatewayServers) -> None:
    async with administered(gateway_server) as (server, admin):
        keys = await asyncio.gather(*(made(admin, "keys", account_id=1, name=f"key {i}") for i in range(20)))
        answers = await asyncio.gather(*(ask(server, key["secret"]) for key in keys))
        assert {answer.status_code for answer in answers} == {200}


async def test_several_limits_are_set_shown_and_held(gateway_server: GatewayServers) -> None:
    daily = {"kind": "day", "amount_usd": "0.000001", "time_zone": "Asia/Kathmandu", "model": DEMO}
    async with administered(gateway_server) as (server, admin):
        account = await made(admin, "accounts", name="acme", limits=[{"kind": "month", "amount_usd": "25.00"}, daily])
        assert account["limit"] is None
        limits, balance = account["limits"], account["balance"]
        assert isinstance(limits, list)
        assert isinstance(balance, dict)
        assert limits[1] == daily | {"week_start": None}
        assert [one["left_usd"] for one in balance["limits"]] == ["25.00", "0.000001"]
        key = await made(admin, "keys", account_id=account["id"], name="key")
        refused = await ask(server, key["secret"])
        assert refused.status_code == 402
        assert f"per day (Asia/Kathmandu) for {DEMO}" in refused.json()["error"]["message"]
        assert "retry-after" not in refused.headers, "no day is long enough for this"
        path = f"/admin/accounts/{account['id']}/limits"
        both = await admin.put(f"/admin/keys/{key['id']}/terms", json={"limit": daily, "limits": [daily]})
        many = await admin.put(path, json={"limits": [daily | {"model": f"model {n}"} for n in range(9)]})
        assert (both.status_code, many.status_code) == (422, 422)
        assert "at most 8" in many.json()["error"]["message"]
        assert (await admin.put(path, json={"limits": []})).json()["limit"] == {"kind": "none", "amount_usd": None}

"""A gateway on PostgreSQL while another process holds rows that it needs: what its clients and probes are told."""

import asyncio

import asyncpg

from engine.script import RequestScript, Script, emit
from pricing.accounts import Accounts
from pricing.keys import Keys
from storage.database import Database
from tests.gateway.conftest import DEMO, GatewayServers
from tests.postgres import PostgresServer

OK = Script((RequestScript((emit("ok"),)),))
CHAT = {"model": DEMO, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}


async def secret_of_another_account(url: str) -> str:
    database = await Database.open(url)
    account = await Accounts(database).create("another", actor="test")
    created = await Keys(database).create(account.id, "another", actor="test")
    await database.close()
    return created.secret


async def test_held_rows_make_it_unready_only_while_nobody_can_be_served(
    gateway_server: GatewayServers, postgres: PostgresServer
) -> None:
    url = await postgres.copy("template_farebox")
    times = {"database_lock_seconds": 0.2, "database_statement_seconds": 3}
    holder = await asyncpg.connect(url)
    async with gateway_server(OK, database_url=url, **times) as server:
        other = await secret_of_another_account(url)
        async with server.client() as client, server.client(other) as free, holder.transaction():
            account_id = (await server.key()).account_id
            await holder.fetch("SELECT id FROM accounts WHERE id = $1 FOR UPDATE", account_id)
            held = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
            while (ready := await client.get("/health/ready")).status_code == 200:
                await asyncio.sleep(0.02)
            assert ready.json()["problems"] == ["the ledger waits for rows that another process holds"]
            assert not held.done()

            assert (await free.post("/v1/chat/completions", json=CHAT)).status_code == 200
            assert (await client.get("/health/ready")).status_code == 200

            answer = await held
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ledger_unavailable")
            assert int(answer.headers["retry-after"]) > 0
            assert "Another process holds this account's rows" in answer.json()["error"]["message"]
        async with server.client() as client:
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        assert [entry["state"] for entry in await server.entries()] == ["settled", "settled"]
    await holder.close()

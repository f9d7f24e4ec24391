"""Anthropic's batches: its SDK's own example, in its shapes, over the same rows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx
import pytest

from engine.script import RequestScript, Script, emit, sleep
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers, rows
from tests.gateway.test_files import of_another_account

pytestmark = pytest.mark.vllm
PATH = "/v1/messages/batches"
SCRIPT = Script(requests=(RequestScript((emit("Hello there"),)),), max_num_seqs=8)


def request(number: int, **more: Any) -> Any:
    params = {"model": DEMO, "max_tokens": 16, "messages": [{"role": "user", "content": "Hi"}]} | more
    return {"custom_id": f"request-{number}", "params": params}


@asynccontextmanager
async def sdk(server: GatewayServer) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key=server.secret, max_retries=0) as client:
        yield client


async def ended(client: anthropic.AsyncAnthropic, batch_id: str) -> Any:
    async with asyncio.timeout(60):
        while (batch := await client.messages.batches.retrieve(batch_id)).processing_status != "ended":
            await asyncio.sleep(0.05)
    return batch


async def test_anthropics_sdk_runs_its_own_example(gateway_server: GatewayServers) -> None:
    async with gateway_server(SCRIPT) as server, sdk(server) as client:
        requests = [*(request(number) for number in range(5)), request(5, model="nobody/else"), request(6, top_k=-7)]
        made = await client.messages.batches.create(requests=requests)
        assert (made.type, made.processing_status) == ("message_batch", "in_progress")
        assert made.request_counts.processing == 7
        assert made.results_url is None
        batch = await ended(client, made.id)
        assert batch.ended_at is not None
        assert batch.request_counts.model_dump() == {
            "processing": 0,
            "succeeded": 5,
            "errored": 2,
            "canceled": 0,
            "expired": 0,
        }
        found = {one.custom_id: one.result async for one in await client.messages.batches.results(made.id)}
        assert set(found) == {f"request-{number}" for number in range(7)}
        good = found["request-0"]
        assert good.type == "succeeded"
        assert good.message.content[0].to_dict()["text"] == "Hello there"
        kinds = {name: result.error.error.type for name, result in found.items() if result.type == "errored"}
        assert kinds == {"request-5": "not_found_error", "request-6": "invalid_request_error"}
        assert [one.id async for one in client.messages.batches.list(limit=1)] == [made.id]
        (row,) = await rows(server.database, "batches")
        entries = await server.entries()
        assert row["cost"] == sum(entry["cost"] for entry in entries) > 0
        assert {entry["tier"] for entry in entries} == {"batch"}
        assert (await client.messages.batches.delete(made.id)).type == "message_batch_deleted"
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.batches.retrieve(made.id)
        assert await rows(server.database, "files") == []


async def test_a_cancelled_one_tells_of_each_request(gateway_server: GatewayServers) -> None:
    slow = Script(requests=(RequestScript((sleep(0.05), emit("ok"))),), max_num_seqs=2)
    async with gateway_server(slow, lease_seconds=1) as server, sdk(server) as client:
        made = await client.messages.batches.create(requests=[request(number) for number in range(200)])
        cancelled = await client.messages.batches.cancel(made.id)
        assert cancelled.processing_status == "canceling"
        assert cancelled.cancel_initiated_at is not None
        batch = await ended(client, made.id)
        found = [one.result.type async for one in await client.messages.batches.results(made.id)]
        assert len(found) == 200
        assert set(found) <= {"succeeded", "canceled"}
        assert batch.request_counts.canceled == found.count("canceled") > 0
        assert batch.request_counts.succeeded == found.count("succeeded")


WRONG: list[tuple[Any, int, str]] = [
    ({"requests": []}, 422, "requests"),
    ({}, 422, "requests"),
    ({"requests": [request(0), request(0)]}, 422, "requests[1].custom_id"),
    ({"requests": [{"custom_id": "a"}]}, 422, "requests[0].params"),
    ({"requests": [{"custom_id": "x" * 65, "params": {}}]}, 422, "requests[0].custom_id"),
    ({"requests": [request(0, stream=True)]}, 422, "requests[0].params.stream"),
]


async def test_a_body_that_is_no_batch_is_refused_in_anthropics_shape(gateway_server: GatewayServers) -> None:
    async with gateway_server(SCRIPT, batch_body_bytes_max=4096) as server, server.client() as client:
        for body, status, param in WRONG:
            answer = await client.post(PATH, json=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
            assert answer.json()["type"] == "error"
        headers = {"content-type": "application/json"}
        assert (await client.post(PATH, content=b"{nonsense", headers=headers)).status_code == 400
        assert (await client.post(PATH, content=b"x" * 5000, headers=headers)).status_code == 413
        assert (await client.post(PATH, content=b"{}", headers={"content-type": "text/plain"})).status_code == 415


async def test_it_belongs_to_its_account_and_to_its_dialect(gateway_server: GatewayServers) -> None:
    async with gateway_server(SCRIPT) as server, server.client() as client:
        made = (await client.post(f"/anthropic{PATH}", json={"requests": [request(0)]})).json()
        assert (await client.get(f"/v1/batches/{made['id']}")).status_code == 404
        assert (await client.get("/v1/batches")).json()["data"] == []
        async with server.client(await of_another_account(server)) as other:
            assert (await other.get(f"{PATH}/{made['id']}")).status_code == 404
        async with asyncio.timeout(30):
            while (found := (await client.get(f"/anthropic{PATH}/{made['id']}")).json())["ended_at"] is None:
                await asyncio.sleep(0.05)
        assert found["results_url"] == f"{server.url}/anthropic{PATH}/{made['id']}/results"
        answer: httpx.Response = await client.get(found["results_url"])
        assert answer.headers["content-type"] == "application/jsonl"

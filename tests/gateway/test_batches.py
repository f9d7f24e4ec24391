"""Batches by OpenAI's API: validated, run at the batch's price, their results in files, whatever happens meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from engine.script import HANG, RequestScript, Script, emit, fail, sleep
from gateway.batches.batch import Batch, Status, Tally
from gateway.batches.batches import is_late
from gateway.cli import build_parser
from gateway.commands.batches import progress
from gateway.settings import SettingsError
from pricing.balance import Limit, LimitKind
from pricing.keys import Keys, KeyTerms
from pricing.money import Picodollars
from storage.database import Database
from storage.errors import InvalidSetting
from tests.gateway.conftest import DEMO, WEBHOOK_SECRET, GatewayServer, GatewayServers, make_key, rows
from tests.gateway.test_files import of_another_account, upload
from tests.gateway.test_webhooks import Receiver, receiver

__all__ = ["receiver"]

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


def line(number: int, url: str = CHAT, said: str = "Hi", **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": DEMO, "max_tokens": 8}
    match url:
        case "/v1/completions":
            body["prompt"] = said
        case "/v1/responses":
            body = {"model": DEMO, "input": said}
        case _:
            body["messages"] = [{"role": "user", "content": said}]
    return {"custom_id": f"line-{number}", "method": "POST", "url": url, "body": body | more}


def jsonl(lines: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in lines).encode()


async def submit(client: httpx.AsyncClient, content: bytes, url: str = CHAT, **fields: Any) -> dict[str, Any]:
    made = (await upload(client, content)).json()
    body = {"input_file_id": made["id"], "endpoint": url, "completion_window": "24h", **fields}
    answer = await client.post("/v1/batches", json=body)
    assert answer.status_code == 200, answer.text
    batch: dict[str, Any] = answer.json()
    return batch


async def ended(client: httpx.AsyncClient, batch: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            found: dict[str, Any] = (await client.get(f"/v1/batches/{batch['id']}")).json()
            if found["status"] in ENDED:
                return found
            await asyncio.sleep(0.03)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.01)


async def results(client: httpx.AsyncClient, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    text = (await client.get(f"/v1/files/{file_id}/content")).text
    return [json.loads(one) for one in text.splitlines()]


async def total_cost(server: GatewayServer, batch: dict[str, Any]) -> tuple[int, int]:
    """What the batch says that it cost, and what the ledger charged at its tier, both in picodollars."""
    (row,) = [row for row in await rows(server.database, "batches") if row["id"] == batch["id"]]
    entries = [entry for entry in await server.entries() if entry["tier"] == "batch"]
    return row["cost"], sum(entry["cost"] for entry in entries)


@asynccontextmanager
async def demo(make: GatewayServers, *requests: RequestScript, **more: Any) -> AsyncIterator[Any]:
    seats = more.pop("seats", 8)
    script = Script(requests=requests or (RequestScript((emit("Hello there"),)),), max_num_seqs=seats)
    async with make(script, cards=[DEMO], **more) as server, server.client() as client:
        yield server, client


async def test_openais_sdk_runs_its_whole_batch_example(gateway_server: GatewayServers, tmp_path: Path) -> None:
    """Upload, create, poll, download: as OpenAI's guide has it."""
    source = tmp_path / "batchinput.jsonl"
    source.write_bytes(jsonl([line(number) for number in range(20)]))
    async with demo(gateway_server) as (server, _):
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.secret) as client:
            batch_input_file = await client.files.create(file=source, purpose="batch")
            batch = await client.batches.create(
                input_file_id=batch_input_file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"description": "nightly eval job"},
            )
            assert batch.status == "validating"
            while batch.status not in ENDED:
                await asyncio.sleep(0.05)
                batch = await client.batches.retrieve(batch.id)
            assert batch.status == "completed"
            assert batch.model == DEMO
            assert batch.metadata == {"description": "nightly eval job"}
            assert batch.request_counts is not None
            assert batch.request_counts.model_dump() == {"total": 20, "completed": 20, "failed": 0}
            assert batch.error_file_id is None
            assert batch.output_file_id is not None
            output = [json.loads(one) for one in (await client.files.content(batch.output_file_id)).text.splitlines()]
            listed = [one.id async for one in client.batches.list(limit=1)]
            assert listed == [batch.id]
        assert {one["custom_id"] for one in output} == {f"line-{number}" for number in range(20)}
        answers = [one["response"]["body"] for one in output]
        assert all(one["error"] is None and one["response"]["status_code"] == 200 for one in output)
        assert {answer["choices"][0]["message"]["content"] for answer in answers} == {"Hello there"}
        assert {answer["service_tier"] for answer in answers} == {"batch"}
        entries = {entry["request_id"]: entry for entry in await server.entries()}
        assert {one["response"]["request_id"] for one in output} == set(entries)
        assert {entry["tier"] for entry in entries.values()} == {"batch"}
        price = server.gateway.catalog.get(DEMO).price
        assert {entry["price_output"] for entry in entries.values()} == {price.output // 2}
        shown, charged = await total_cost(server, {"id": batch.id})
        assert shown == charged > 0
        assert batch.usage is not None
        assert batch.usage.output_tokens == sum(entry["completion_tokens"] for entry in entries.values())
        kept = (await rows(server.database, "batch_results"), await rows(server.database, "reservations"))
        assert kept == ([], [])


@pytest.mark.parametrize("url", ["/v1/completions", "/v1/responses"])
async def test_other_endpoints(gateway_server: GatewayServers, url: str) -> None:
    if url == "/v1/responses":
        pytest.importorskip("vllm")
    async with demo(gateway_server) as (_, client):
        batch = await ended(client, await submit(client, jsonl([line(n, url) for n in range(3)]), url))
        output = await results(client, batch["output_file_id"])
        assert len(output) == 3
        wanted = {"/v1/completions": "text_completion", "/v1/responses": "response"}[url]
        assert {one["response"]["body"]["object"] for one in output} == {wanted}


FAULTS = [
    (b"{not json}\n", "invalid_json_line", None),
    (b"[]\n", "invalid_json_line", None),
    (jsonl([line(1) | {"custom_id": 5}]), "invalid_custom_id", "custom_id"),
    (jsonl([line(0)]), "duplicate_custom_id", "custom_id"),
    (jsonl([line(2) | {"method": "GET"}]), "invalid_method", "method"),
    (jsonl([line(3) | {"url": "/v1/completions"}]), "invalid_url", "url"),
    (jsonl([line(4) | {"body": "text"}]), "invalid_body", "body"),
    (jsonl([line(5, stream=True)]), "invalid_parameter", "body.stream"),
    (jsonl([line(6, model="nobody/else")]), "model_not_found", "body.model"),
    (jsonl([line(7, model="meta-llama/Llama-2-70b-chat-hf")]), "mismatched_model", "body.model"),
    (jsonl([line(8, temperature=5)]), "invalid_parameter", "body.temperature"),
    (jsonl([line(9, messages=[{"role": "nobody", "content": "x"}])]), "invalid_parameter", "body.messages[0].role"),
    (jsonl([line(10, temprature=1)]), "invalid_parameter", "body.temprature"),
    (b'{"custom_id": "' + b"x" * 5000 + b'"}\n', "line_too_long", None),
]


async def test_what_is_wrong_is_told_by_line_and_field_and_nothing_is_run(gateway_server: GatewayServers) -> None:
    async with gateway_server(body_bytes_max=4096) as server, server.client() as client:
        content = jsonl([line(0)]) + b"".join(wrong for wrong, _, _ in FAULTS)
        batch = await ended(client, await submit(client, content))
        assert batch["status"] == "failed"
        assert batch["errors"]["object"] == "list"
        told = [(fault["line"], fault["code"], fault["param"]) for fault in batch["errors"]["data"]]
        assert told == [(number, code, param) for number, (_, code, param) in enumerate(FAULTS, start=2)]
        assert all(fault["message"] for fault in batch["errors"]["data"])
        assert batch["request_counts"]["total"] == 0
        assert await server.entries() == []


async def test_a_file_without_lines_or_with_too_many_fails(gateway_server: GatewayServers) -> None:
    async with gateway_server(batch_lines_max=3) as server, server.client() as client:
        for content, code in ((b"\n \n", "empty_file"), (jsonl([line(n) for n in range(4)]), "too_many_lines")):
            batch = await ended(client, await submit(client, content))
            assert [fault["code"] for fault in batch["errors"]["data"]] == [code]


REFUSED = [
    ({"input_file_id": "file-none"}, 404, "input_file_id"),
    ({"endpoint": "/v1/moderations"}, 422, "endpoint"),
    ({"completion_window": "1h"}, 422, "completion_window"),
    ({"metadata": {"a": 1}}, 422, "metadata.a"),
    ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, 422, "output_expires_after.seconds"),
    ({"webhook": "https://example.com"}, 400, "webhook"),
    ({"priority": 1}, 422, "priority"),
]


@pytest.mark.parametrize(("fields", "status", "param"), REFUSED)
async def test_a_wrong_request_for_a_batch_is_refused(
    gateway_server: GatewayServers, fields: dict[str, Any], status: int, param: str
) -> None:
    async with gateway_server() as server, server.client() as client:
        made = (await upload(client, jsonl([line(0)]))).json()
        body = {"input_file_id": made["id"], "endpoint": CHAT, "completion_window": "24h", **fields}
        answer = await client.post("/v1/batches", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_an_account_sees_its_own_batches_only_and_not_the_results_as_input(
    gateway_server: GatewayServers,
) -> None:
    async with demo(gateway_server) as (server, client):
        batch = await ended(client, await submit(client, jsonl([line(0)])))
        async with server.client(await of_another_account(server)) as other:
            assert (await other.get(f"/v1/batches/{batch['id']}")).status_code == 404
            assert (await other.post(f"/v1/batches/{batch['id']}/cancel")).status_code == 404
            assert (await other.get("/v1/batches")).json()["data"] == []
            assert (await other.get(f"/v1/files/{batch['output_file_id']}/content")).status_code == 404
        again = {"input_file_id": batch["output_file_id"], "endpoint": CHAT, "completion_window": "24h"}
        assert (await client.post("/v1/batches", json=again)).status_code == 422


async def test_a_line_that_is_refused_when_it_is_run_is_in_the_error_file(gateway_server: GatewayServers) -> None:
    """A prompt too long for the context is known once it is rendered."""
    lines = [line(0), line(1, said="word " * 140_000), line(2)]
    async with demo(gateway_server) as (server, client):
        batch = await ended(client, await submit(client, jsonl(lines)))
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
        (refused,) = await results(client, batch["error_file_id"])
        assert (refused["custom_id"], refused["error"]) == ("line-1", None)
        assert refused["response"]["status_code"] == 400
        assert refused["response"]["body"]["error"]["code"] == "context_length_exceeded"
        assert len(await results(client, batch["output_file_id"])) == 2
        shown, charged = await total_cost(server, batch)
        assert shown == charged


async def test_a_line_at_which_the_engine_fails_is_tried_again_and_then_told(gateway_server: GatewayServers) -> None:
    broken = RequestScript((fail("broken"),), match="please break")
    async with demo(gateway_server, broken, RequestScript((emit("fine"),))) as (server, client):
        batch = await ended(client, await submit(client, jsonl([line(0), line(1, said="please break")])))
        (refused,) = await results(client, batch["error_file_id"])
        assert refused["response"]["body"]["error"]["code"] == "engine_error"
        entries = await server.entries()
        assert sorted(entry["state"] for entry in entries) == ["settled", "void", "void", "void"]


async def test_when_the_money_ends_the_rest_is_told_and_the_batch_completes(gateway_server: GatewayServers) -> None:
    """A limit for some lines: as many are run as it pays for, exactly, and it is never exceeded."""
    async with demo(gateway_server) as (server, client):
        once = await ended(client, await submit(client, jsonl([line(0)])))
        cost, _ = await total_cost(server, once)
        reserved = (await server.entries())[0]["amount"]
        limit = 6 * cost + reserved
        terms = KeyTerms((Limit(LimitKind.TOTAL, Picodollars(limit)),))
        secret = await make_key(server.database, "poor", terms)
        async with server.client(secret) as poor:
            batch = await ended(poor, await submit(poor, jsonl([line(n) for n in range(30)])))
            assert batch["status"] == "completed"
            assert batch["request_counts"] == {"total": 30, "completed": 7, "failed": 23}
            refused = await results(poor, batch["error_file_id"])
            assert {one["response"]["body"]["error"]["code"] for one in refused} == {"insufficient_funds"}
            assert {one["response"]["status_code"] for one in refused} == {402}
            shown, _ = await total_cost(server, batch)
            assert shown == 7 * cost <= limit


async def test_a_key_that_is_revoked_ends_its_batch(gateway_server: GatewayServers) -> None:
    slow = RequestScript((sleep(0.05), emit("ok")))
    async with demo(gateway_server, slow, seats=2) as (server, client):
        secret = await make_key(server.database, "short")
        async with server.client(secret) as short:
            batch = await submit(short, jsonl([line(n) for n in range(40)]))

            async def some() -> bool:
                found = (await client.get(f"/v1/batches/{batch['id']}")).json()
                return bool(found["request_counts"]["completed"] >= 2)

            await until(some)
        database = await Database.open(server.database)
        key = (await Keys(database).list(prefix=secret[:8]))[-1]
        await Keys(database).revoke(key.id, actor="test")
        await database.close()
        batch = await ended(client, batch)
        refused = await results(client, batch["error_file_id"])
        assert batch["request_counts"]["completed"] + len(refused) == 40
        assert {one["response"]["body"]["error"]["code"] for one in refused} == {"invalid_api_key"}


async def test_a_cancelled_batch_has_what_was_done_and_names_the_rest(gateway_server: GatewayServers) -> None:
    slow = RequestScript((sleep(0.03), emit("ok")))
    async with demo(gateway_server, slow, seats=2, lease_seconds=1) as (server, client):
        batch = await submit(client, jsonl([line(n) for n in range(400)]))

        async def begun() -> bool:
            found = (await client.get(f"/v1/batches/{batch['id']}")).json()
            return bool(found["request_counts"]["completed"] >= 3)

        await until(begun)
        answer = (await client.post(f"/v1/batches/{batch['id']}/cancel")).json()
        assert answer["status"] == "cancelling"
        assert answer["cancelling_at"] is not None
        batch = await ended(client, batch)
        assert batch["status"] == "cancelled"
        output = await results(client, batch["output_file_id"])
        rest = await results(client, batch["error_file_id"])
        assert 3 <= len(output) < 400
        assert len(output) + len(rest) == 400
        assert {one["custom_id"] for one in output + rest} == {f"line-{n}" for n in range(400)}
        assert {(one["response"], one["error"]["code"]) for one in rest} == {(None, "batch_cancelled")}
        again = await client.post(f"/v1/batches/{batch['id']}/cancel")
        assert again.status_code == 409
        shown, charged = await total_cost(server, batch)
        assert shown == charged


async def test_a_batch_whose_window_ends_expires(gateway_server: GatewayServers) -> None:
    hangs = RequestScript((sleep(0.05), emit("ok")))
    async with demo(gateway_server, hangs, seats=1, lease_seconds=1, batch_hours=1.2 / 3600) as (_, client):
        batch = await ended(client, await submit(client, jsonl([line(n) for n in range(300)])))
        assert batch["status"] == "expired"
        rest = await results(client, batch["error_file_id"])
        assert rest[-1]["error"] == {
            "code": "batch_expired",
            "message": "This request could not be executed before the completion window expired.",
        }
        assert rest[-1]["response"] is None
        assert len(rest) + len(await results(client, batch["output_file_id"])) == 300


async def test_interactive_requests_find_a_seat_while_a_batch_runs(gateway_server: GatewayServers) -> None:
    """Batch lines that never end take no more than their share, and one that asks now is answered now."""
    hangs = RequestScript((HANG,), match="please hang")
    async with demo(gateway_server, hangs, RequestScript((emit("ok"),)), seats=8) as (server, client):
        await submit(client, jsonl([line(n, said="please hang") for n in range(50)]))

        def room_taken() -> int:
            return len(server.engines[0].running)

        async with asyncio.timeout(10):
            while room_taken() < 2:
                await asyncio.sleep(0.01)
        for _ in range(5):
            body = {"model": DEMO, "messages": [{"role": "user", "content": "Hi"}]}
            answer = await client.post(CHAT, json=body)
            assert answer.json()["service_tier"] == "default"
        assert room_taken() <= 6
        page = (await client.get("/metrics")).text
        assert f'farebox_requests_waiting{{model="{DEMO}",tier="batch"}}' in page


async def test_two_batches_take_turns(gateway_server: GatewayServers) -> None:
    slow = RequestScript((sleep(0.01), emit("ok")))
    async with demo(gateway_server, slow, seats=4) as (_, client):
        long = await submit(client, jsonl([line(n) for n in range(300)]))
        short = await submit(client, jsonl([line(n) for n in range(3)]))
        await ended(client, short)
        still = (await client.get(f"/v1/batches/{long['id']}")).json()
        assert still["status"] in ("validating", "in_progress")


async def test_an_account_has_only_so_many_batches_open(gateway_server: GatewayServers) -> None:
    hangs = RequestScript((HANG,))
    async with demo(gateway_server, hangs, batch_open_max=1) as (_, client):
        await submit(client, jsonl([line(0)]))
        made = (await upload(client, jsonl([line(0)]))).json()
        body = {"input_file_id": made["id"], "endpoint": CHAT, "completion_window": "24h"}
        answer = await client.post("/v1/batches", json=body)
        assert answer.status_code == 429
        assert "1 batches" in answer.json()["error"]["message"]


async def test_a_gateway_that_stops_leaves_its_batch_to_the_next(gateway_server: GatewayServers) -> None:
    """What ran is undone or whole; the next goes on with what has no result, and nothing is charged twice."""
    slow = RequestScript((sleep(0.03), emit("ok")))
    async with demo(gateway_server, slow, seats=4, shutdown_seconds=0.0) as (_, client):
        batch = await submit(client, jsonl([line(n) for n in range(60)]))

        async def begun() -> bool:
            found = (await client.get(f"/v1/batches/{batch['id']}")).json()
            return bool(found["request_counts"]["completed"] >= 5)

        await until(begun)
    async with demo(gateway_server, slow, seats=4) as (server, client):
        batch = await ended(client, batch)
        assert batch["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
        output = await results(client, batch["output_file_id"])
        assert sorted(one["custom_id"] for one in output) == sorted(f"line-{n}" for n in range(60))
        entries = {entry["request_id"]: entry for entry in await server.entries()}
        charged = {name for name, entry in entries.items() if entry["cost"]}
        assert charged == {one["response"]["request_id"] for one in output}
        shown, total = await total_cost(server, batch)
        assert shown == total


async def test_a_client_is_called_when_its_batch_has_ended(gateway_server: GatewayServers, receiver: Receiver) -> None:
    more = {"webhook_secret": WEBHOOK_SECRET, "webhook_allow_private": True}
    async with demo(gateway_server, **more) as (_, client):
        good = await submit(client, jsonl([line(0)]), webhook=receiver.url)
        assert good["webhook"] == receiver.url
        await ended(client, good)
        bad = await submit(client, b"nonsense\n", webhook=receiver.url)
        await ended(client, bad)
        events = sorted([await receiver.document() for _ in range(2)], key=lambda event: str(event["type"]))
        assert [(event["type"], event["data"]["id"]) for event in events] == [
            ("batch.completed", good["id"]),
            ("batch.failed", bad["id"]),
        ]
        assert all(event["object"] == "event" and event["id"].startswith("evt_") for event in events)
        refused = {"input_file_id": good["input_file_id"], "endpoint": CHAT, "completion_window": "24h"}
        answer = await client.post("/v1/batches", json={**refused, "webhook": "http://user@nowhere/"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "webhook")


async def test_the_command_line_runs_shows_lists_and_cancels(
    gateway_server: GatewayServers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "requests.jsonl"
    source.write_bytes(jsonl([line(number) for number in range(4)]))

    async def farebox(*arguments: str) -> tuple[int, str]:
        options = build_parser().parse_args(["batches", *arguments])
        status = await asyncio.to_thread(options.run, options)
        return status, capsys.readouterr().out

    async with demo(gateway_server) as (server, _):
        place = ("--data-dir", str(tmp_path))
        status, out = await farebox("run", str(source), "--wait", "--url", server.url, "--key", server.secret)
        batch_id, target = out.split()
        assert (status, target) == (0, str(tmp_path / "requests.output.jsonl"))
        assert len((tmp_path / "requests.output.jsonl").read_text().splitlines()) == 4
        _, out = await farebox("list", "--json", *place)
        (row,) = json.loads(out)
        assert (row["batch"], row["status"], row["completed"]) == (batch_id, "completed", 4)
        _, out = await farebox("show", batch_id, *place)
        assert json.loads(out)["request_counts"]["completed"] == 4
        with pytest.raises(InvalidSetting, match="is completed"):
            await farebox("cancel", batch_id, *place)
        source.write_bytes(b"nonsense\n")
        with pytest.raises(SettingsError, match="--endpoint"):
            await farebox("run", str(source), "--url", server.url, "--key", server.secret)
        arguments = ("--endpoint", CHAT, "--wait", "--url", server.url, "--key", server.secret)
        status, _ = await farebox("run", str(source), *arguments)
        assert status == 1


def test_a_line_of_progress() -> None:
    batch = {"request_counts": {"total": 4, "completed": 1, "failed": 1}, "status": "in_progress"}
    assert progress(batch).rstrip() == f"{'█' * 15}{'░' * 15}  50%  2 of 4, 1 failed  in_progress"


def test_a_batch_that_is_too_slow_for_its_window_is_late() -> None:
    def batch(minutes: int, done: int) -> bool:
        begun = Batch(
            *("b", 1, 1, "openai", CHAT, None, "f", None, None, Status.IN_PROGRESS, None, None, None, None, 100, 0),
            Tally(completed=done),
            created_at=0,
            expires_at=24 * 60 * 60_000,
            in_progress_at=0,
        )
        return is_late(begun, minutes * 60_000)

    assert not batch(60, 0)  # too early to say
    assert batch(180, 0)
    assert batch(180, 10)
    assert not batch(180, 13)

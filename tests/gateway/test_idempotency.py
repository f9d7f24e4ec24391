"""`Idempotency-Key`: charged once, answered with the same bytes, streams included."""

import asyncio
import contextlib
import json
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.script import HANG, RequestScript, Script, emit, fail, sleep
from gateway.idempotency.store import Answer, IdempotencyStore
from pricing.clock import system_clock
from pricing.key import KeyTerms
from storage.database import Database
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers, make_key, rows
from tests.server import start_server

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
NATIVE = f"/v1/inference/{DEMO}"
WORDS = "one two three four five six seven"
DAY_MS = 86_400_000

ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"model": DEMO, "messages": [{"role": "user", "content": "hello"}]}),
    "completions": (COMPLETIONS, {"model": DEMO, "prompt": "hello"}),
    "native": (NATIVE, {"input": "hello"}),
}


def key(name: str) -> dict[str, str]:
    return {"idempotency-key": name}


def chat(text: str = "hello", **fields: object) -> dict[str, object]:
    return {"model": DEMO, "messages": [{"role": "user", "content": text}], **fields}


def spoken(text: str = WORDS) -> Script:
    return Script((RequestScript((emit(text),)),))


def slow(seconds: float = 0.3) -> Script:
    return Script((RequestScript((emit("one two"), sleep(seconds), emit(" three"))),))


def same_answer(first: httpx.Response, second: httpx.Response) -> bool:
    return (first.status_code, first.headers["content-type"], first.content) == (
        second.status_code,
        second.headers["content-type"],
        second.content,
    )


async def stored(server: GatewayServer, count: int = 1) -> list[dict[str, object]]:
    """The claims, once none of this process's is being written."""
    while True:
        found = [row for row in await rows(server.database, "idempotency") if row["state"] != "running"]
        if len(found) >= count:
            return found
        await asyncio.sleep(0.02)


async def charged(server: GatewayServer) -> list[dict[str, object]]:
    return [entry for entry in await server.entries() if entry["state"] != "void"]


@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
@pytest.mark.parametrize("route", ROUTES)
async def test_a_repetition_gets_the_same_bytes_and_costs_nothing(
    gateway_server: GatewayServers, route: str, stream: bool
) -> None:
    path, body = ROUTES[route]
    async with gateway_server(spoken()) as server, server.client() as client:
        first = await client.post(path, json={**body, "stream": stream}, headers=key("k"))
        assert first.status_code == 200
        assert "idempotency-replayed" not in first.headers
        await stored(server)
        second = await client.post(path, json={**body, "stream": stream}, headers=key("k"))
        assert second.headers["idempotency-replayed"] == "true"
        assert same_answer(first, second)
        assert first.headers["x-request-id"] != second.headers["x-request-id"]
        assert len(await charged(server)) == 1


async def test_answers_survive_a_restart(gateway_server: GatewayServers) -> None:
    async with gateway_server(spoken()) as server, server.client() as client:
        first = await client.post(CHAT, json=chat(stream=True), headers=key("k"))
    async with gateway_server(spoken("something else")) as server, server.client() as client:
        second = await client.post(CHAT, json=chat(stream=True), headers=key("k"))
        assert same_answer(first, second)
        assert len(await charged(server)) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
async def test_one_hundred_duplicates_at_once_are_one_request(gateway_server: GatewayServers, stream: bool) -> None:
    async with gateway_server(slow()) as server, server.client() as client:
        answers = await asyncio.gather(
            *(client.post(CHAT, json=chat(stream=stream), headers=key("k")) for _ in range(100))
        )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert sum("idempotency-replayed" in answer.headers for answer in answers) == 99
        assert len(await charged(server)) == 1


async def test_a_disconnected_request_runs_on_and_its_retry_gets_the_whole_answer(
    gateway_server: GatewayServers,
) -> None:
    async with gateway_server(slow(0.5)) as server:
        async with (
            server.client() as client,
            client.stream("POST", CHAT, json=chat(stream=True), headers=key("k")) as cut,
        ):
            async for line in cut.aiter_lines():
                if "two" in line:
                    break
        async with server.client() as client:
            retry = await client.post(CHAT, json=chat(stream=True), headers=key("k"))
        assert retry.text.endswith("data: [DONE]\n\n")
        assert " three" in retry.text
        (entry,) = await charged(server)
        assert (entry["completion_tokens"], entry["outcome"]) == (3, "finished")


async def test_a_client_that_timed_out_before_any_byte_gets_the_answer_on_its_retry(
    gateway_server: GatewayServers,
) -> None:
    async with gateway_server(slow(0.6)) as server, server.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(CHAT, json=chat(), headers=key("k"), timeout=0.2)
        retry = await client.post(CHAT, json=chat(), headers=key("k"))
        assert retry.json()["choices"][0]["message"]["content"] == "one two three"
        assert len(await charged(server)) == 1


async def test_another_body_or_path_is_refused(gateway_server: GatewayServers) -> None:
    async with gateway_server(spoken()) as server, server.client() as client:
        await client.post(CHAT, json=chat(), headers=key("k"))
        await stored(server)
        for path, body in ((CHAT, chat("other")), ("/v1/openai/chat/completions", chat())):
            answer = await client.post(path, json=body, headers=key("k"))
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_conflict")
        assert len(await charged(server)) == 1


async def test_another_body_is_refused_while_the_first_runs(gateway_server: GatewayServers) -> None:
    async with gateway_server(slow(0.5)) as server, server.client() as client:
        first = asyncio.create_task(client.post(CHAT, json=chat(), headers=key("k")))
        while not server.engines[0].running:
            await asyncio.sleep(0.01)
        assert (await client.post(CHAT, json=chat("other"), headers=key("k"))).status_code == 409
        assert (await first).status_code == 200


async def test_keys_of_different_clients_have_nothing_to_do_with_each_other(gateway_server: GatewayServers) -> None:
    async with gateway_server(spoken()) as server:
        other = await make_key(server.database, "other")
        async with server.client() as client, server.client(other) as stranger:
            first = await client.post(CHAT, json=chat(), headers=key("k"))
            second = await stranger.post(CHAT, json=chat(), headers=key("k"))
        assert "idempotency-replayed" not in second.headers
        assert first.json()["id"] != second.json()["id"]


@pytest.mark.parametrize("name", ["", "a b", "x" * 256, "é"])
async def test_a_key_must_be_visible_and_short(gateway_server: GatewayServers, name: str) -> None:
    async with gateway_server(spoken()) as server, server.client() as client:
        answer = await client.post(CHAT, json=chat(), headers={b"idempotency-key": name.encode("latin-1")})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "Idempotency-Key")


async def test_a_refused_request_is_not_kept(gateway_server: GatewayServers) -> None:
    async with gateway_server(spoken()) as server, server.client() as client:
        for _ in range(2):
            assert (await client.post(CHAT, json=chat(temperature=9), headers=key("k"))).status_code == 422
        assert await rows(server.database, "idempotency") == []
        assert (await client.post(CHAT, json=chat(), headers=key("k"))).status_code == 200


async def test_an_uncharged_failure_is_not_kept_and_a_retry_runs(gateway_server: GatewayServers) -> None:
    script = Script((RequestScript((fail("broken"),)), RequestScript((emit("fine"),))))
    async with gateway_server(script) as server, server.client() as client:
        assert (await client.post(CHAT, json=chat(), headers=key("k"))).status_code == 500
        assert (await client.post(CHAT, json=chat(), headers=key("k"))).status_code == 200
        assert len(await charged(server)) == 1


async def test_a_failure_costs_nothing_and_its_retry_runs_anew(gateway_server: GatewayServers) -> None:
    script = Script((RequestScript((emit("one two"), fail("broken"))), RequestScript((emit("fine"),))))
    async with gateway_server(script) as server, server.client() as client:
        assert (await client.post(CHAT, json=chat(), headers=key("k"))).status_code == 500
        assert await charged(server) == []
        retry = await client.post(CHAT, json=chat(), headers=key("k"))
        assert (retry.status_code, retry.json()["choices"][0]["message"]["content"]) == (200, "fine")
        assert len(await charged(server)) == 1


async def test_a_stream_that_ran_out_of_time_was_charged_and_is_not_charged_again(
    gateway_server: GatewayServers,
) -> None:
    script = Script((RequestScript((emit("one two"), HANG)), RequestScript((emit("fine"),))))
    async with gateway_server(script, request_timeout_seconds=0.5) as server, server.client() as client:
        with contextlib.suppress(httpx.RemoteProtocolError):
            await client.post(CHAT, json=chat(stream=True), headers=key("k"))
        (entry,) = await charged(server)
        await stored(server)
        retry = await client.post(CHAT, json=chat(stream=True), headers=key("k"))
        assert (retry.status_code, retry.json()["error"]["code"]) == (409, "idempotency_answer_lost")
        assert str(entry["request_id"]) in retry.json()["error"]["message"]
        assert retry.headers["x-should-retry"] == "false"
        assert len(await charged(server)) == 1


async def test_a_stream_that_broke_is_replayed_as_it_was(gateway_server: GatewayServers) -> None:
    script = Script((RequestScript((emit("one two"), fail("broken"))), RequestScript((emit("fine"),))))
    async with gateway_server(script) as server, server.client() as client:
        first = await client.post(CHAT, json=chat(stream=True), headers=key("k"))
        assert "engine_error" in first.text
        assert same_answer(first, await client.post(CHAT, json=chat(stream=True), headers=key("k")))
        assert len(await charged(server)) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
async def test_an_answer_that_is_too_large_is_given_whole_but_once(
    gateway_server: GatewayServers, stream: bool
) -> None:
    script = spoken("word " * 2000)
    async with gateway_server(script, idempotency_bytes_max=4096) as server, server.client() as client:
        first = await client.post(CHAT, json=chat(stream=stream), headers=key("k"))
        assert first.status_code == 200
        assert first.text.count("word ") == 2000 if not stream else first.text.endswith("[DONE]\n\n")
        await stored(server)
        retry = await client.post(CHAT, json=chat(stream=stream), headers=key("k"))
        assert (retry.status_code, retry.json()["error"]["code"]) == (409, "idempotency_answer_lost")
        assert len(await charged(server)) == 1


async def test_a_too_large_answer_without_a_listener_is_stopped(gateway_server: GatewayServers) -> None:
    script = Script((RequestScript((emit("word " * 200), sleep(0.2), emit("more " * 200), HANG)),))
    async with gateway_server(script, idempotency_bytes_max=4096) as server:
        async with (
            server.client() as client,
            client.stream("POST", CHAT, json=chat(stream=True), headers=key("k")) as cut,
        ):
            async for _ in cut.aiter_lines():
                break
        while server.engines[0].running:
            await asyncio.sleep(0.02)
        (entry,) = await charged(server)
        assert entry["outcome"] == "client_gone"


async def test_a_joining_retry_needs_no_slot_of_its_own(gateway_server: GatewayServers) -> None:
    async with gateway_server(slow(0.5)) as server:
        secret = await make_key(server.database, "limited", KeyTerms(concurrent_requests=1))
        async with server.client(secret) as client:
            first = asyncio.create_task(client.post(CHAT, json=chat(), headers=key("k")))
            while not server.engines[0].running:
                await asyncio.sleep(0.01)
            retry = await client.post(CHAT, json=chat(), headers=key("k"))
            assert same_answer(await first, retry)


async def test_a_shutdown_that_cuts_a_request_off_does_not_lead_to_a_second_charge(
    gateway_server: GatewayServers,
) -> None:
    script = Script((RequestScript((emit("one two three"), HANG)),))
    async with gateway_server(script, shutdown_seconds=0.1) as server, server.client() as client:
        running = asyncio.create_task(client.post(CHAT, json=chat(stream=True), headers=key("k")))
        while sum(one.counts.completion for one in server.engines[0].running) < 3:
            await asyncio.sleep(0.01)
        server.gateway.pipeline.cut_off()
        await asyncio.gather(running, return_exceptions=True)
    async with gateway_server(spoken()) as server, server.client() as client:
        retry = await client.post(CHAT, json=chat(stream=True), headers=key("k"))
        assert (retry.status_code, retry.json()["error"]["code"]) == (409, "idempotency_answer_lost")
        assert "3 tokens" in retry.json()["error"]["message"]
        assert len(await charged(server)) == 1


# What other processes left behind: claims written by hand, the ledger real


@asynccontextmanager
async def claims(server: GatewayServer) -> AsyncIterator[IdempotencyStore]:
    database = await Database.open(server.database)
    yield IdempotencyStore(database)
    await database.close()


async def digest(server: GatewayServer, body: dict[str, object]) -> bytes:
    """What the gateway writes for this body: taken from a claim of its own."""
    async with server.client() as client:
        await client.post(CHAT, content=json.dumps(body), headers=key("probe"))
    (row,) = await stored(server)
    found = row["body_hash"]
    assert isinstance(found, bytes)
    return found


async def test_a_claim_of_another_process_that_runs_means_try_again(gateway_server: GatewayServers) -> None:
    async with gateway_server(spoken()) as server:
        body = chat()
        hashed = await digest(server, body)
        async with claims(server) as store:
            await store.claim((await server.key()).id, "k", hashed, "chatcmpl-elsewhere", life_ms=DAY_MS)
        async with server.client() as client:
            answer = await client.post(CHAT, content=json.dumps(body), headers=key("k"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_in_progress")
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_claim_whose_process_died_before_it_reserved_is_taken_over(gateway_server: GatewayServers) -> None:
    async with gateway_server(spoken()) as server:
        body = chat()
        hashed = await digest(server, body)
        database = await Database.open(server.database)
        past = IdempotencyStore(database, clock=lambda: system_clock() - 120_000)
        await past.claim((await server.key()).id, "k", hashed, "chatcmpl-elsewhere", life_ms=DAY_MS)
        await database.close()
        async with server.client() as client:
            answer = await client.post(CHAT, content=json.dumps(body), headers=key("k"))
        assert answer.status_code == 200


async def test_duplicates_at_two_gateways_are_charged_once(gateway_server: GatewayServers) -> None:
    async with gateway_server(slow()) as one, gateway_server(slow()) as other, one.client() as a, other.client() as b:

        async def insist(client: httpx.AsyncClient) -> bytes:
            while True:
                answer = await client.post(CHAT, json=chat(stream=True), headers=key("k"))
                if answer.status_code == 200:
                    return answer.content
                assert answer.json()["error"]["code"] == "idempotency_in_progress"
                await asyncio.sleep(0.1)

        bodies = await asyncio.gather(*(insist((a, b)[i % 2]) for i in range(20)))
        assert len(set(bodies)) == 1
        await other.gateway.ledger.flush()
        assert len(await charged(one)) == 1


def test_a_process_killed_while_it_streams_is_not_charged_for_again(tmp_path: Path) -> None:
    script = {"request": [{"steps": [{"emit": "one two three"}, {"hang": True}]}]}
    settings = {
        "FAREBOX_SOURCE": f"scripted:{json.dumps(script)}",
        "FAREBOX_BOOTSTRAP_KEY": f"test-{secrets.token_hex(16)}",
    }
    with start_server(tmp_path, **settings) as server:
        server.wait_until_ready()
        with server.client() as client, client.stream("POST", CHAT, json=chat(stream=True), headers=key("k")) as cut:
            for line in cut.iter_lines():
                if "three" in line:
                    break
            identity = re.search(r"chatcmpl-\w+", line)
            assert identity is not None
            # The tokens are on the disk with the next checkpoint.
            while client.get(f"/v1/requests/{identity[0]}").json()["usage"]["completion_tokens"] < 3:
                pass
            server.process.kill()
            server.process.wait()
    with start_server(tmp_path, **settings) as server:
        server.wait_until_ready()
        with server.client() as client:
            while client.get(f"/v1/requests/{identity[0]}").json()["state"] == "running":
                pass
            for _ in range(100):
                retry = client.post(CHAT, json=chat(stream=True), headers=key("k"))
                assert retry.status_code == 409
                if retry.json()["error"]["code"] == "idempotency_answer_lost":
                    break
                assert retry.json()["error"]["code"] == "idempotency_in_progress"
                time.sleep(0.5)
            assert f"{identity[0]}, was cut off after 3 tokens" in retry.json()["error"]["message"]
            assert client.get("/v1/usage").json()["total"]["requests"] == 1


async def test_answers_expire(gateway_server: GatewayServers) -> None:
    async with gateway_server(spoken()) as server, server.client() as client:
        first = await client.post(CHAT, json=chat(), headers=key("k"))
        await stored(server)
        database = await Database.open(server.database)
        tomorrow = IdempotencyStore(database, clock=lambda: system_clock() + DAY_MS)
        assert await tomorrow.purge() == 1
        await database.close()
        second = await client.post(CHAT, json=chat(), headers=key("k"))
        assert first.json()["id"] != second.json()["id"]
        assert len(await charged(server)) == 2


async def test_a_stored_answer_comes_back_byte_for_byte(gateway_server: GatewayServers) -> None:
    async with gateway_server(spoken()) as server, claims(server) as store:
        for body in (b"", b"x" * 300_000, bytes(range(256))):
            name = f"k{len(body)}"
            assert await store.claim(1, name, b"h" * 32, "r", life_ms=DAY_MS) is None
            await store.finish(1, name, "r", Answer(200, "text/plain", body), life_ms=DAY_MS)
            found = await store.claim(1, name, b"h" * 32, "other", life_ms=DAY_MS)
            assert found is not None
            assert found.answer == Answer(200, "text/plain", body)

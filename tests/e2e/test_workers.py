"""`farebox serve --workers 2`: one gateway to its clients, whichever process they meet. What it charges: test_money."""

import asyncio
import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.streams import DEMO, ledger_rows, start_streams
from tests.e2e.test_lifecycle import session_processes, wait_until_gone
from tests.gateway.redis_server import running_redis
from tests.server import Server, farebox_environment, run_farebox, start_server

QUESTION = {"model": DEMO, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 5, "temperature": 0}
CHAT = "/v1/chat/completions"
SCRIPT = 'scripted:{"request": [{"steps": [{"emit": "a"}, {"sleep": 1}, {"emit": " b"}]}]}'


@contextmanager
def two_workers(folder: Path, **settings: str) -> Iterator[Server]:
    key = f"test-{secrets.token_hex(16)}"
    with (
        running_redis(folder) as redis,
        start_server(
            folder, FAREBOX_WORKERS="2", FAREBOX_REDIS_URL=redis.url, FAREBOX_BOOTSTRAP_KEY=key, **settings
        ) as server,
    ):
        server.wait_until_ready()
        yield server


async def ask_apart(server: Server, count: int) -> list[httpx.Response]:
    """The question on as many new connections, all at once."""

    async def ask() -> httpx.Response:
        async with server.async_client() as http:
            return await http.post(CHAT, json=QUESTION)

    return await asyncio.gather(*(ask() for _ in range(count)))


def total(page: str, sample: str) -> float:
    """The sum of a sample over its labels; of requests, those for chats."""
    samples = [found for family in text_string_to_metric_families(page) for found in family.samples]
    return sum(found.value for found in samples if found.name == sample and found.labels.get("route", CHAT) == CHAT)


async def test_every_worker_serves_and_every_scrape_shows_all(workers: Server) -> None:
    with workers.client() as http:
        before = http.get("/metrics").text
    answers = await ask_apart(workers, 60)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
    await asyncio.sleep(1.5)  # vLLM's figures and the gauges of the worker that isn't scraped come once a second
    for _ in range(8):
        with workers.client() as http:  # a new connection, and perhaps the other worker
            page = http.get("/metrics").text
        for sample in ("farebox_requests_total", "farebox_request_seconds_count", "vllm:request_success_total"):
            assert total(page, sample) - total(before, sample) == 60, sample
        assert total(page, "farebox_requests_running") == total(page, "farebox_reservations_open") == 0
    lines = [json.loads(line) for line in workers.output.splitlines() if line.startswith("{")]
    assert Counter(line["worker"] for line in lines).keys() == {0, 1}


async def test_limits_hold_across_workers(tmp_path: Path) -> None:
    with two_workers(
        tmp_path, FAREBOX_SOURCE=SCRIPT, FAREBOX_LIMIT_REQUESTS_PER_MINUTE="20", FAREBOX_LIMIT_CONCURRENT_REQUESTS="5"
    ) as server:
        at_once = Counter(answer.status_code for answer in await ask_apart(server, 12))
        assert at_once == {200: 5, 429: 7}
        for _ in range(3):
            await ask_apart(server, 5)
        refused = (await ask_apart(server, 1))[0]
        assert refused.status_code == 429
        assert "minute" in refused.json()["error"]["message"]


async def test_sigterm_lets_every_worker_finish(tmp_path: Path) -> None:
    with two_workers(tmp_path, FAREBOX_SOURCE=SCRIPT) as server:
        asking = asyncio.create_task(ask_apart(server, 20))
        await asyncio.sleep(0.5)
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal's Ctrl-C, to all of them
        assert {answer.status_code for answer in await asking} == {200}
        assert await asyncio.to_thread(server.process.wait, 30) == 0
        rows = await ledger_rows(server)
    assert len(rows) == 20
    assert {row["state"] for row in rows} == {"settled"}


async def test_a_worker_that_is_killed_ends_the_gateway(tmp_path: Path) -> None:
    with two_workers(tmp_path, FAREBOX_SOURCE=SCRIPT) as server:
        worker = next(pid for pid in session_processes(server.process.pid) if b"spawn_main" in command_of(pid))
        os.kill(worker, signal.SIGKILL)
        assert await asyncio.to_thread(server.process.wait, 30) == 2
        assert not await wait_until_gone(server.process.pid, 10)
    assert "ended with status -9, and the gateway with it" in server.output


def test_without_redis_there_is_one_worker(tmp_path: Path) -> None:
    environment = farebox_environment(tmp_path, FAREBOX_WORKERS="2", FAREBOX_SOURCE=SCRIPT)
    refused = run_farebox(environment, "serve")
    assert refused.returncode == 2
    assert "FAREBOX_REDIS_URL" in refused.stderr


async def test_a_killed_engine_is_told_to_every_worker_and_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    with two_workers(tmp_path, FAREBOX_SOURCE="demo") as server:
        session = server.process.pid
        async with server.async_client() as http:
            streams, running = await start_streams(http, 8, 8000)
            core = next(pid for pid, name in session_processes(session).items() if "Engine" in name)
            os.kill(core, signal.SIGKILL)
            await asyncio.wait_for(running, 30)
        assert all(stream.error is not None and stream.error["code"] == "engine_dead" for stream in streams)
        answers = await ask_apart(server, 12)
        assert {(answer.status_code, answer.json()["error"]["code"]) for answer in answers} == {(503, "engine_dead")}
        async with server.async_client() as http:
            assert (await http.get("/health/live")).status_code == 503
        os.kill(session, signal.SIGKILL)
        assert not await wait_until_gone(session, 30)
        server.process.wait()


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()

"""How a gateway with the real engine ends: asked to, interrupted in a terminal, killed, and with its engine killed."""

import asyncio
import http.client as http_client
import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from email.message import Message
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.streams import DEMO, ledger_rows, start_streams
from tests.server import Server, start_server

pytestmark = pytest.mark.timeout(600)  # each test loads weights, on a machine that may have other work

STREAMS = 32
TOKENS = 600
ENDLESS = 8000
QUESTION: dict[str, Any] = {"model": DEMO, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 5}


@contextmanager
def real_server(folder: Path, **settings: str) -> Iterator[Server]:
    with start_server(
        folder, FAREBOX_SOURCE="demo", FAREBOX_BOOTSTRAP_KEY=f"test-{secrets.token_hex(16)}", **settings
    ) as server:
        server.wait_until_ready()
        yield server


def session_processes(session: int) -> dict[int, str]:
    """The living processes of a session, by id, with their command names."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue  # it ended meanwhile
        state, _, _, sid = rest.split()[:4]
        if int(sid) == session and state != "Z":
            found[int(folder.name)] = name
    return found


async def wait_until_gone(session: int, seconds: float) -> dict[int, str]:
    deadline = time.monotonic() + seconds
    while (left := session_processes(session)) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return left


@asynccontextmanager
async def kept_connection(server: Server) -> AsyncIterator[http_client.HTTPConnection]:
    """Unlike httpx's it stays until the server closes it."""
    connection = http_client.HTTPConnection("127.0.0.1", server.port)
    try:
        yield connection
    finally:
        connection.close()


def ask(connection: http_client.HTTPConnection, server: Server) -> tuple[int, dict[str, dict[str, str]], Message]:
    headers = {"authorization": f"Bearer {server.key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(QUESTION), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read()), answer.headers


async def test_sigterm_under_load_loses_nothing(tmp_path: Path) -> None:
    with real_server(tmp_path, FAREBOX_SHUTDOWN_SECONDS="120") as server:
        async with server.async_client() as http, kept_connection(server) as idle:
            assert ask(idle, server)[0] == 200
            streams, running = await start_streams(http, STREAMS, TOKENS)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            status, document, headers = await asyncio.to_thread(ask, idle, server)
            async with server.async_client() as late:
                try:
                    await late.post("/v1/chat/completions", json=QUESTION)
                    raise AssertionError("a new connection was accepted")
                except httpx.ConnectError:
                    pass
            await running
            assert await asyncio.to_thread(server.process.wait, 60) == 0
        assert not await wait_until_gone(server.process.pid, 10)
        rows = await ledger_rows(server)

    assert f"finishing {STREAMS} running requests" in server.output
    assert (status, document["error"]["code"]) == (503, "shutting_down")
    assert int(headers["retry-after"]) > 0
    assert headers["connection"] == "close"
    for stream in streams:
        assert (stream.failure, stream.error, stream.done) == (None, None, True)
        assert stream.usage["completion_tokens"] == TOKENS
    rows = [row for row in rows if int(row["completion_tokens"]) > QUESTION["max_tokens"]]
    assert len(rows) == STREAMS
    assert {(row["state"], row["outcome"], row["completion_tokens"]) for row in rows} == {
        ("settled", "finished", str(TOKENS))
    }


async def test_ctrl_c_leaves_the_engine_to_its_streams_and_kill_9_leaves_no_process(tmp_path: Path) -> None:
    """A terminal's Ctrl-C goes to every process; `kill -9` only to the gateway's own."""
    with real_server(tmp_path, FAREBOX_SHUTDOWN_SECONDS="120") as server:
        session = server.process.pid
        async with server.async_client() as http:
            streams, running = await start_streams(http, 4, ENDLESS)
            processes = session_processes(session)
            assert "VLLM::EngineCor" in processes.values()
            os.killpg(session, signal.SIGINT)
            await asyncio.sleep(0.5)
            before = [len(stream.chunks) for stream in streams]
            await asyncio.sleep(3)
            assert session_processes(session) == processes
            assert all(len(stream.chunks) > count for stream, count in zip(streams, before, strict=True))
            os.kill(session, signal.SIGKILL)
            await running
        server.process.wait()
        assert all(stream.failure is not None for stream in streams)
        assert not await wait_until_gone(session, 30)


async def test_a_killed_engine_is_told_to_everyone_and_charged_for_what_it_gave(tmp_path: Path) -> None:
    with real_server(tmp_path) as server:
        async with server.async_client() as http:
            streams, running = await start_streams(http, 4, ENDLESS)
            core = next(pid for pid, name in session_processes(server.process.pid).items() if "Engine" in name)
            os.kill(core, signal.SIGKILL)
            await asyncio.wait_for(running, 30)
            alive, ready = await http.get("/health/live"), await http.get("/health/ready")
            refused = await http.post("/v1/chat/completions", json=QUESTION)
            exposed = (await http.get("/metrics")).text
        assert await asyncio.to_thread(server.stop) == 0
        assert not await wait_until_gone(server.process.pid, 10)
        rows = await ledger_rows(server)

    assert (alive.status_code, ready.status_code) == (503, 503)
    assert ready.json()["problems"] == ["engine dead"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_dead")
    assert int(refused.headers["retry-after"]) > 0
    assert f'farebox_engine_state{{model="{DEMO}",state="dead"}} 1.0' in exposed
    for stream in streams:
        assert stream.error is not None
        assert stream.error["code"] == "engine_dead"
        assert stream.failure is None
    assert {(row["state"], row["outcome"]) for row in rows} == {("settled", "engine_error")}
    assert all(int(row["completion_tokens"]) > 0 for row in rows)

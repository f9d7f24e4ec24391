"""The end of a drain that runs out, by the clock or by a second signal. The tokens are scripted: only time matters."""

import asyncio
import json
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.e2e.streams import DEMO, Stream, ledger_rows, start_streams
from tests.server import Server, start_server

LONG = [step for n in range(3000) for step in ({"emit": f" w{n}"}, {"sleep": 0.02})]
FLOOD = [{"emit": "".join(f" {n:04000}" for n in range(4000))}]  # 16 MB: more than the kernel takes for a client
SCRIPT = {"request": [{"match": "flood", "steps": FLOOD}, {"steps": LONG}]}
STREAMS = 8


@asynccontextmanager
async def scripted_server(folder: Path, **settings: str) -> AsyncIterator[Server]:
    script = folder / "script.json"
    script.write_text(json.dumps(SCRIPT))
    with start_server(
        folder, FAREBOX_SOURCE=f"scripted:{script}", FAREBOX_BOOTSTRAP_KEY=f"test-{secrets.token_hex(16)}", **settings
    ) as server:
        await asyncio.to_thread(server.wait_until_ready)
        yield server


async def assert_cut_off(server: Server, streams: list[Stream]) -> None:
    """Every stream ended with an event that says so, and was charged for at least what its client saw."""
    for stream in streams:
        assert stream.failure is None
        assert stream.error is not None
        assert stream.error["code"] == "shutting_down"
    rows = await ledger_rows(server)
    assert len(rows) == len(streams)
    assert {(row["state"], row["outcome"]) for row in rows} == {("settled", "shutdown")}
    charged = {row["request_id"]: int(row["completion_tokens"]) for row in rows}
    for stream in streams:
        seen = sum(1 for chunk in stream.chunks if chunk["choices"][0]["delta"].get("content"))  # type: ignore[index]
        assert charged[str(stream.chunks[0]["id"])] >= seen > 0


async def test_streams_that_outlast_the_grace_end_with_an_event_and_are_settled(tmp_path: Path) -> None:
    async with scripted_server(tmp_path, FAREBOX_SHUTDOWN_SECONDS="1") as server, server.async_client() as http:
        streams, running = await start_streams(http, STREAMS, 3000)
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 30) == 0
        await running
    await assert_cut_off(server, streams)


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    async with scripted_server(tmp_path, FAREBOX_SHUTDOWN_SECONDS="600") as server, server.async_client() as http:
        streams, running = await start_streams(http, STREAMS, 3000)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 30) == 0
        await running
    await assert_cut_off(server, streams)


async def test_clients_that_neither_read_nor_send_do_not_hold_the_exit(tmp_path: Path) -> None:
    body = json.dumps({"model": DEMO, "messages": [{"role": "user", "content": "flood"}], "stream": True})
    async with scripted_server(tmp_path, FAREBOX_SHUTDOWN_SECONDS="1") as server:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.key}\r\n"
        with (
            socket.create_connection(("127.0.0.1", server.port)) as deaf,
            socket.create_connection(("127.0.0.1", server.port)) as dumb,
            socket.create_connection(("127.0.0.1", server.port)),
        ):
            deaf.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
            dumb.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body[:10]}".encode())
            await asyncio.sleep(1)
            begun = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.process.wait, 60) == 0
            assert time.monotonic() - begun < 30
    [row] = await ledger_rows(server)
    assert (row["state"], row["outcome"]) == ("settled", "shutdown")


async def test_requests_are_refused_while_it_loads_and_ctrl_c_ends_the_load(tmp_path: Path) -> None:
    slow = "scripted:" + json.dumps({"start_seconds": 600})
    with start_server(tmp_path, FAREBOX_SOURCE=slow, FAREBOX_BOOTSTRAP_KEY=f"test-{secrets.token_hex(16)}") as server:
        async with server.async_client() as http:
            assert (await http.get("/health/live")).status_code == 200
            assert (await http.get("/health/ready")).json()["problems"] == ["engine starting"]
            question = {"model": DEMO, "messages": [{"role": "user", "content": "Hello!"}]}
            refused: httpx.Response = await http.post("/v1/chat/completions", json=question)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_starting")
        server.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(server.process.wait, 30) == 0

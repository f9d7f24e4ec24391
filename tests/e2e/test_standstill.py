"""A gateway that stands still for longer than its lease: what the other one settled for it is not delivered on."""

import asyncio
import csv
import io
import json
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.e2e.streams import Stream
from tests.postgres import PostgresServer
from tests.server import Server, start_server

LEASE_SECONDS = 2
TOKENS_PER_SECOND = 20
CHECKPOINT_SECONDS = 0.5
# Slow enough that a good part of it is left after the standstill.
STEPS = [step for n in range(400) for step in ({"emit": f"w{n}"}, {"sleep": 1 / TOKENS_PER_SECOND})]
SCRIPT = "scripted:" + json.dumps({"request": [{"steps": STEPS}]})


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Server]]:
    """Two gateways on one database."""
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = asyncio.run(postgres.copy("template_farebox"))
    else:
        url = f"sqlite:///{tmp_path}/shared.db"
    settings = {
        "FAREBOX_SOURCE": SCRIPT,
        "FAREBOX_DATABASE_URL": url,
        "FAREBOX_BOOTSTRAP_KEY": f"test-{secrets.token_hex(16)}",
        "FAREBOX_LEASE_SECONDS": str(LEASE_SECONDS),
        "FAREBOX_CHECKPOINT_SECONDS": str(CHECKPOINT_SECONDS),
    }
    with ExitStack() as stack:
        servers = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            servers.append(stack.enter_context(start_server(folder, **settings)))
            servers[-1].wait_until_ready()
        yield servers


def entries(server: Server) -> list[dict[str, str]]:
    result = server.farebox("usage", "export")
    assert result.returncode == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


async def interrupted(server: Server, count: int) -> None:
    """Return once this many requests are settled as interrupted."""
    async with asyncio.timeout(60):
        while sum(row["state"] == "interrupted" for row in await asyncio.to_thread(entries, server)) < count:
            await asyncio.sleep(0.2)


async def test_what_another_process_settled_ends_with_an_error_and_delivers_nothing_more(pair: list[Server]) -> None:
    stopped, other = pair
    stream = Stream()
    body = {"model": "farebox/demo", "messages": [{"role": "user", "content": "go"}], "max_tokens": 300}
    async with stopped.async_client() as http:
        streaming = asyncio.create_task(stream.run(http, 300))
        document = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        await stream.begun.wait()
        await asyncio.sleep(2 * CHECKPOINT_SECONDS)
        os.kill(stopped.process.pid, signal.SIGSTOP)
        try:
            await interrupted(other, 2)
            before = len(stream.chunks)
        finally:
            os.kill(stopped.process.pid, signal.SIGCONT)
        await streaming
        answer: httpx.Response = await document
    assert stream.error is not None, "the stream went on to its end"
    assert stream.error["code"] == "interrupted"
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "interrupted")
    delivered = len(stream.chunks)
    assert delivered == before  # the chunk that was under way when it was stopped may have come
    assert stopped.stop() == other.stop() == 0
    rows = await asyncio.to_thread(entries, other)
    assert [row["state"] for row in rows] == ["interrupted"] * 2
    streamed = next(row for row in rows if row["request_id"] == stream.chunks[0]["id"])
    # At most what came since the last checkpoint is nobody's charge.
    assert 0 <= delivered - int(streamed["completion_tokens"]) <= 2 * CHECKPOINT_SECONDS * TOKENS_PER_SECOND
    assert "its entries stand" in stopped.output

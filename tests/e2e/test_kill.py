"""`kill -9` at random moments under load: nothing that a client saw is missing, and nothing is charged twice."""

import asyncio
import csv
import io
import json
import os
import random
import secrets
import signal
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx

from tests.server import Server, start_server

KILLS = 20
STREAMS = 8
TOKENS = 400
TOKENS_PER_SECOND = 50
PRICE_OUT = Decimal("0.79") / 10**6
# One token every 20 ms: the real engine's pace can't be relied on to be the same on every machine.
STEPS = [step for n in range(TOKENS) for step in ({"emit": f"w{n}"}, {"sleep": 1 / TOKENS_PER_SECOND})]
SCRIPT = "scripted:" + json.dumps({"request": [{"steps": STEPS}]})


@dataclass
class Seen:
    """What clients got: tokens by the answer's id."""

    tokens: dict[str, int] = field(default_factory=dict)


async def stream(http: httpx.AsyncClient, seen: Seen) -> None:
    body = {
        "model": "farebox/demo",
        "messages": [{"role": "user", "content": "go"}],
        "stream": True,
        # Some are over before the kill, some are not.
        "max_tokens": random.choice([5, 20, TOKENS]),
    }
    try:
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    chunk = json.loads(line.removeprefix("data: "))
                    if chunk["choices"][0]["delta"].get("content"):
                        seen.tokens[chunk["id"]] = seen.tokens.get(chunk["id"], 0) + 1
    except httpx.HTTPError:
        return  # it was killed


async def load_until_killed(server: Server, seen: Seen) -> None:
    async with server.async_client() as http:

        async def client() -> None:
            while server.process.poll() is None:
                await stream(http, seen)

        clients = [asyncio.create_task(client()) for _ in range(STREAMS)]
        await asyncio.sleep(random.uniform(0.1, 1.5))
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        await asyncio.gather(*clients)


def entries(server: Server) -> list[dict[str, str]]:
    result = server.farebox("usage", "export")
    assert result.returncode == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


async def test_nothing_seen_is_lost_and_nothing_is_charged_twice(tmp_path: Path) -> None:
    random.seed(20)
    seen = Seen()
    settings = {"FAREBOX_SOURCE": SCRIPT, "FAREBOX_BOOTSTRAP_KEY": f"test-{secrets.token_hex(16)}"}
    for _ in range(KILLS):
        with start_server(tmp_path, **settings) as server:
            await asyncio.to_thread(server.wait_until_ready)
            await load_until_killed(server, seen)
    with start_server(tmp_path, **settings) as server:
        await asyncio.to_thread(server.wait_until_ready)
        assert server.stop() == 0
    rows = await asyncio.to_thread(entries, server)

    by_id = {row["request_id"]: row for row in rows}
    assert len(by_id) == len(rows), "a request was charged twice"
    assert seen.tokens, "no client got a token"
    assert seen.tokens.keys() <= by_id.keys(), "a client saw tokens of a request that the ledger doesn't know"
    interrupted = [row for row in rows if row["state"] == "interrupted"]
    assert interrupted, "no request was running when the process was killed"
    for request_id, tokens in seen.tokens.items():
        charged = int(by_id[request_id]["completion_tokens"])
        if by_id[request_id]["state"] == "settled":
            assert charged >= tokens
        else:
            # The last checkpoint is at most a second old; what was generated may not have reached the client.
            assert abs(charged - tokens) < TOKENS_PER_SECOND
    usage = json.loads((await asyncio.to_thread(server.farebox, "usage", "--by", "", "--json")).stdout)
    assert Decimal(usage[0]["cost_usd"]) == sum(Decimal(row["cost_usd"]) for row in rows)

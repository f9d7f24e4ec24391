"""SQLite's disk is full: nothing is served uncharged, running streams finish, and all is settled when there is room."""

import asyncio
import csv
import io
import json
import resource
import secrets
from decimal import Decimal
from pathlib import Path

import httpx

from tests.server import start_server

STEPS = [step for n in range(200) for step in ({"emit": f"w{n}"}, {"sleep": 0.05})]
SCRIPT = "scripted:" + json.dumps({"request": [{"steps": STEPS}]})
FILE_BYTES = 150_000  # more than the log takes, less than the database's journal has by then


def chat(max_tokens: int, stream: bool = False) -> dict[str, object]:
    messages = [{"role": "user", "content": "go"}]
    return {"model": "farebox/demo", "messages": messages, "max_tokens": max_tokens, "stream": stream}


async def test_a_full_disk_stops_new_requests_and_loses_nothing(tmp_path: Path) -> None:
    received: list[Decimal] = []

    async def ask(http: httpx.AsyncClient, max_tokens: int) -> int:
        answer = await http.post("/v1/chat/completions", json=chat(max_tokens))
        if answer.status_code == 200:
            received.append(Decimal(str(answer.json()["usage"]["estimated_cost"])))
        return answer.status_code

    key = f"test-{secrets.token_hex(16)}"
    with start_server(tmp_path, FAREBOX_SOURCE=SCRIPT, FAREBOX_BOOTSTRAP_KEY=key) as server:
        await asyncio.to_thread(server.wait_until_ready)
        async with server.async_client() as http:
            for _ in range(8):
                assert set(await asyncio.gather(*(ask(http, 1) for _ in range(8)))) == {200}
            running = [asyncio.create_task(ask(http, 150)) for _ in range(4)]
            await asyncio.sleep(1)
            # A quota on the size of a file is a full disk to SQLite; nobody needs to be root for it.
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (FILE_BYTES, resource.RLIM_INFINITY))
            refused = None
            for _ in range(100):
                answer = await http.post("/v1/chat/completions", json=chat(1))
                if answer.status_code == 503:
                    refused = answer
                    break
                received.append(Decimal(str(answer.json()["usage"]["estimated_cost"])))
            assert refused is not None, "the disk never got full"
            assert refused.json()["error"]["code"] == "ledger_unavailable"
            assert int(refused.headers["retry-after"]) > 0
            assert (await http.get("/health/ready")).status_code == 503
            assert await asyncio.gather(*running) == [200] * 4
            assert await ask(http, 1) == 503
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            while (await http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.2)
            assert await ask(http, 1) == 200
        assert server.stop() == 0
    exported = server.farebox("usage", "export")
    rows = list(csv.DictReader(io.StringIO(exported.stdout)))
    charged = [Decimal(row["cost_usd"]) for row in rows if row["state"] == "settled"]
    assert sorted(charged) == sorted(received)

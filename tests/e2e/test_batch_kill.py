"""A batch on two replicas, each killed with `kill -9` at random moments: one result and one charge for each line."""

import asyncio
import csv
import io
import json
import random
import secrets
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from pricing.money import parse_usd
from tests.gateway.conftest import rows
from tests.gateway.test_batches import ENDED, jsonl, line
from tests.postgres import PostgresServer
from tests.server import Server, start_server

LINES = 150
KILLS = 4
SCRIPT = "scripted:" + json.dumps(
    {"request": [{"steps": [{"emit": "one two"}, {"sleep": 0.6}, {"emit": "three"}]}], "max_num_seqs": 8}
)


class Replica:
    """One that is started again after each kill."""

    def __init__(self, stack: ExitStack, folder: Path, settings: dict[str, str]) -> None:
        folder.mkdir()
        self._stack, self._folder, self._settings = stack, folder, settings
        self.server = self._start()

    def _start(self) -> Server:
        return self._stack.enter_context(start_server(self._folder, **self._settings))

    def kill(self) -> None:
        self.server.process.kill()
        self.server.process.wait()

    def restart(self) -> None:
        self.server = self._start()
        self.server.wait_until_ready()


async def look(replicas: list[Replica], batch_id: str) -> dict[str, Any]:
    """By whichever replica answers."""
    async with asyncio.timeout(60):
        while True:
            for replica in replicas:
                try:
                    async with replica.server.async_client() as http:
                        answer = await http.get(f"/v1/batches/{batch_id}")
                except httpx.TransportError:
                    continue
                if answer.status_code == 200:
                    found: dict[str, Any] = answer.json()
                    return found
            await asyncio.sleep(0.05)


async def test_every_line_has_one_result_and_one_charge(tmp_path: Path, postgres: PostgresServer) -> None:
    url = await postgres.copy("template_farebox")
    settings = {
        "FAREBOX_SOURCE": SCRIPT,
        "FAREBOX_DATABASE_URL": url,
        "FAREBOX_DATA_DIR": str(tmp_path / "data"),
        "FAREBOX_BOOTSTRAP_KEY": f"test-{secrets.token_hex(16)}",
        "FAREBOX_LEASE_SECONDS": "1",
    }
    with ExitStack() as stack:
        replicas = [Replica(stack, tmp_path / name, settings) for name in ("one", "two")]
        for replica in replicas:
            replica.server.wait_until_ready()
        async with replicas[0].server.async_client() as http:
            content = jsonl([line(number) for number in range(LINES)])
            file = await http.post("/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"})
            body = {
                "input_file_id": file.json()["id"],
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            }
            batch = (await http.post("/v1/batches", json=body)).json()
        kills = 0
        async with asyncio.timeout(200):
            while batch["status"] not in ENDED:
                before = batch["request_counts"]["completed"]
                while batch["status"] not in ENDED and batch["request_counts"]["completed"] < before + 10:
                    await asyncio.sleep(0.1)
                    batch = await look(replicas, batch["id"])
                if kills < KILLS and batch["status"] not in ENDED:
                    await asyncio.sleep(random.random())
                    replicas[kills % 2].kill()
                    replicas[kills % 2].restart()
                    kills += 1
        assert kills >= 2
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        async with replicas[0].server.async_client() as http:
            text = (await http.get(f"/v1/files/{batch['output_file_id']}/content")).text
        output = [json.loads(one) for one in text.splitlines()]
        assert Counter(one["custom_id"] for one in output) == Counter(f"line-{number}" for number in range(LINES))
        await _all_settled(url)
        exported = replicas[0].server.farebox("usage", "export")
        assert exported.returncode == 0, exported.stderr
    entries = list(csv.DictReader(io.StringIO(exported.stdout)))
    assert set(Counter(entry["request_id"] for entry in entries).values()) == {1}
    charged = {entry["request_id"]: entry for entry in entries if int(entry["cost"])}
    assert set(charged) == {one["response"]["request_id"] for one in output}
    for one in output:
        answer = one["response"]["body"]
        entry = charged[one["response"]["request_id"]]
        assert int(entry["completion_tokens"]) == answer["usage"]["completion_tokens"] == 3
        assert int(entry["cost"]) == parse_usd(f"{answer['usage']['estimated_cost']:.12f}")
    (row,) = await rows(url, "batches")
    assert row["cost"] == sum(int(entry["cost"]) for entry in charged.values())
    (account,) = await rows(url, "accounts")
    assert (account["spent_total"], account["reserved"]) == (row["cost"], 0)
    assert await rows(url, "batch_results") == []


async def _all_settled(url: str) -> None:
    """What dead processes left is settled by the others once their leases have run out."""
    async with asyncio.timeout(30):
        while await rows(url, "reservations"):
            await asyncio.sleep(0.1)

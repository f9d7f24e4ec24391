"""Half a minute of the soak (`bench/soak.py`): what leaks, leaks with each request, and shows in a thousand."""

import time

import httpx

from bench.soak import KINDS, at_rest, leaks, load
from tests.server import Server

MODEL = "farebox/demo"
SECONDS = 30
STREAMS = 32


async def test_load_leaves_no_task_descriptor_or_reservation_behind(server: Server) -> None:
    began, pid = time.monotonic(), server.process.pid
    await load(server, MODEL, 3, STREAMS)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as http:
        before = await at_rest(http, pid, began)
        ended = await load(server, MODEL, SECONDS, STREAMS)
        after = await at_rest(http, pid, began)
    assert ended.keys() <= KINDS, ended
    assert ended["leave"]
    assert leaks(before, after) == []

"""Limits that several processes share through Redis, and what happens when it goes away."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.script import RequestScript, Script, emit
from gateway.errors import RateLimited, Unavailable
from gateway.limits.admission import LimitDefaults, RateLimits
from gateway.limits.fallback import SharedLimits
from gateway.limits.memory_store import Bound, Bounds, MemoryStore
from gateway.limits.redis_store import RedisAway, RedisStore
from pricing.key import Key, KeyTerms
from tests.gateway.conftest import DEMO, GatewayServers, make_key
from tests.gateway.redis_server import RedisProcess, running_redis

CHAT = "/v1/chat/completions"
PATIENT = 10.0  # seconds: on a busy machine the event loop is late, not Redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with running_redis(tmp_path) as process:
        yield process


@asynccontextmanager
async def store(redis: RedisProcess, *, window_ms: int = 60_000, lease_ms: int = 15_000) -> AsyncIterator[RedisStore]:
    opened = RedisStore(redis.url, timeout_seconds=PATIENT, lease_ms=lease_ms, window_ms=window_ms)
    try:
        yield opened
    finally:
        await opened.close()


def chat() -> dict[str, object]:
    return {"model": DEMO, "messages": [{"role": "user", "content": "hello"}]}


def key_with(**terms: Any) -> Key:
    return Key(7, 1, "test", "fb-test", "user", KeyTerms(**terms), 0)


async def test_all_of_one_step_is_counted_or_nothing(redis: RedisProcess) -> None:
    bounds = Bounds(requests=Bound("7", 10), concurrent=Bound("7", 3))
    async with store(redis) as one, store(redis) as other:
        levels = await asyncio.gather(*((one, other)[i % 2].enter(f"v{i}", bounds) for i in range(100)))
        assert sum(level.refused is None for level in levels) == 3
        assert sum(level.refused == "concurrent" for level in levels) == 97
        assert (await one.look(bounds)).requests.used == 3


async def test_two_stores_share_windows_slots_and_corrections(redis: RedisProcess) -> None:
    bounds = Bounds(Bound("7", 5), Bound("7", 1000), Bound("7", 2))
    async with store(redis) as one, store(redis) as other:
        await one.enter("a", bounds)
        await one.take("a", bounds, 600)
        await other.enter("b", bounds)
        refused = await other.take("b", bounds, 500)
        assert (refused.refused, refused.tokens.used) == ("tokens", 600)
        assert 0 < refused.tokens.wait_ms <= 60_000
        one.leave("a", bounds, 100)
        while (await other.look(bounds)).tokens.used != 100:
            await asyncio.sleep(0.01)
        assert (await other.take("b", bounds, 500)).tokens.used == 600
        assert (await other.look(bounds)).concurrent.used == 1


async def test_what_is_older_than_the_window_is_forgotten(redis: RedisProcess) -> None:
    bounds = Bounds(requests=Bound("7", 1), tokens=Bound("7", 100))
    async with store(redis, window_ms=400) as one:
        first = await one.enter("a", bounds)
        await one.take("a", bounds, 100)
        assert (first.refused, first.requests.used) == (None, 1)
        refused = await one.enter("b", bounds)
        assert refused.refused == "requests"
        assert 0 < refused.requests.wait_ms <= 400
        while (await one.enter("c", bounds)).refused is not None:
            await asyncio.sleep(0.02)
        assert (await one.look(bounds)).tokens.used == 0


async def test_a_slot_freed_here_is_free_for_the_next_request_here(redis: RedisProcess) -> None:
    bounds = Bounds(concurrent=Bound("7", 1))
    async with store(redis) as one:
        for visit in range(200):
            assert (await one.enter(str(visit), bounds)).refused is None
            one.leave(str(visit), bounds, None)  # Redis hears of it later than of the next `enter`


async def test_slots_of_a_dead_process_free_themselves_and_those_of_a_live_one_stay(redis: RedisProcess) -> None:
    bounds = Bounds(concurrent=Bound("7", 2))
    async with store(redis, lease_ms=600) as dead, store(redis, lease_ms=600) as alive:
        await dead.enter("a", bounds)
        await alive.enter("b", bounds)
        await dead.close()
        while (await alive.look(bounds)).concurrent.used == 2:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # several leases
        assert (await alive.look(bounds)).concurrent.used == 1


async def test_several_slots_of_a_request_are_taken_renewed_and_freed_together(redis: RedisProcess) -> None:
    bounds, one_slot = Bounds(concurrent=Bound("7", 7), slots=5), Bounds(concurrent=Bound("7", 7))
    async with store(redis, lease_ms=600) as one, store(redis, lease_ms=600) as other:
        assert (await one.enter("a", bounds)).concurrent.used == 5
        refused = await other.enter("b", bounds)
        assert (refused.refused, refused.concurrent.used) == ("concurrent", 5)
        assert (await other.enter("c", one_slot)).concurrent.used == 6
        await asyncio.sleep(1.5)  # several leases
        assert (await other.look(bounds)).concurrent.used == 6
        one.leave("a", bounds, None)
        assert (await one.enter("d", bounds)).concurrent.used == 6  # freed for the next one here at once
        one.leave("d", bounds, None)
        while (await other.look(bounds)).concurrent.used != 1:
            await asyncio.sleep(0.01)


async def test_without_redis_each_process_goes_on_with_what_it_admitted(redis: RedisProcess) -> None:
    fallbacks: list[None] = []
    shared = SharedLimits(
        RedisStore(redis.url, timeout_seconds=PATIENT, lease_ms=15_000),
        MemoryStore(),
        on_fallback=lambda: fallbacks.append(None),
    )
    limits = RateLimits(shared, LimitDefaults())
    key = key_with(requests_per_minute=10)
    for _ in range(6):
        await limits.admission(key, []).enter("m")
    redis.kill()
    for _ in range(4):
        await limits.admission(key, []).enter("m")
    with pytest.raises(RateLimited):
        await limits.admission(key, []).enter("m")
    assert not shared.shared
    assert len(fallbacks) == 5
    redis.start()
    while not shared.shared:
        await asyncio.sleep(0.02)
    await limits.admission(key, []).enter("m")
    assert len(fallbacks) == 5
    await limits.close()


async def test_a_slot_left_while_redis_is_away_is_freed_when_it_is_back(redis: RedisProcess) -> None:
    redis_store = RedisStore(redis.url, timeout_seconds=PATIENT, lease_ms=60_000)
    bounds = Bounds(concurrent=Bound("7", 1))
    await redis_store.enter("a", bounds)
    redis_store.leave_later("a", bounds, None)
    assert (await redis_store.look(bounds)).concurrent.used == 1
    redis_store.catch_up()
    assert (await redis_store.enter("b", bounds)).refused is None
    await redis_store.close()


async def test_an_operator_can_choose_to_refuse_without_redis(redis: RedisProcess) -> None:
    redis.kill()
    shared = SharedLimits(RedisStore(redis.url, timeout_seconds=0.1, lease_ms=15_000), MemoryStore(), refuse=True)
    limits = RateLimits(shared, LimitDefaults())
    with pytest.raises(Unavailable) as refused:
        await limits.admission(key_with(requests_per_minute=10), []).enter("m")
    assert refused.value.code == "limits_unavailable"
    await limits.close()


async def test_a_redis_that_hangs_is_asked_once_and_not_by_every_request() -> None:
    connections = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    redis_store = RedisStore(f"redis://127.0.0.1:{port}", timeout_seconds=0.05, lease_ms=15_000)
    shared = SharedLimits(redis_store, MemoryStore())
    limits = RateLimits(shared, LimitDefaults())
    for _ in range(500):
        await limits.admission(key_with(requests_per_minute=1000), []).enter("m")
    assert len(connections) < 20  # the first request's, and the probe's
    await limits.close()
    for writer in connections:
        writer.close()
    server.close()


@pytest.mark.parametrize("turns", range(8))
async def test_a_loop_that_is_held_up_is_no_redis_that_is_away(redis: RedisProcess, turns: int) -> None:
    """Wherever the call is when the loop stops for several times the limit: connecting, sending, or reading."""
    one = RedisStore(redis.url, timeout_seconds=0.05, lease_ms=15_000)
    asked = asyncio.create_task(one.enter("a", Bounds(requests=Bound("7", 10))))
    for _ in range(turns):
        await asyncio.sleep(0)
    time.sleep(0.25)
    assert (await asked).requests.used == 1
    again = asyncio.create_task(one.enter("b", Bounds(requests=Bound("7", 10))))
    for _ in range(turns):
        await asyncio.sleep(0)
    time.sleep(0.25)
    assert (await again).requests.used == 2
    await one.close()


async def test_a_redis_that_is_stopped_is_away(redis: RedisProcess) -> None:
    one = RedisStore(redis.url, timeout_seconds=0.05, lease_ms=15_000)
    bounds = Bounds(requests=Bound("7", 10))
    await one.enter("a", bounds)
    with redis.stopped(), pytest.raises(RedisAway):
        await one.enter("b", bounds)
    await one.close()


async def test_a_gateway_serves_through_a_redis_that_dies_and_returns(
    redis: RedisProcess, gateway_server: GatewayServers
) -> None:
    script = Script((RequestScript((emit("ok"),)),))
    async with gateway_server(script, redis_url=redis.url, redis_timeout_seconds=PATIENT) as server:
        secret = await make_key(server.database, "limited", KeyTerms(requests_per_minute=10))
        async with server.client(secret) as client:

            async def ask(count: int) -> list[int]:
                answers = await asyncio.gather(*(client.post(CHAT, json=chat()) for _ in range(count)))
                return sorted(answer.status_code for answer in answers)

            assert await ask(4) == [200] * 4
            redis.kill()
            assert await ask(10) == [200] * 6 + [429] * 4
            metrics = (await client.get("/metrics")).text
            assert "farebox_limits_shared 0.0" in metrics
            assert "farebox_limit_fallbacks_total 10.0" in metrics
            redis.start()
            while "farebox_limits_shared 1.0" not in (await client.get("/metrics")).text:
                await asyncio.sleep(0.05)
            answer = await client.post(CHAT, json=chat())
            assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (200, "9")


REPLICA = """
import asyncio, json, sys
from gateway.errors import RateLimited
from gateway.limits.redis_store import RedisStore
from gateway.limits.fallback import SharedLimits
from gateway.limits.memory_store import MemoryStore
from gateway.limits.admission import LimitDefaults, RateLimits
from pricing.key import Key, KeyTerms

async def main(url, count):
    store = RedisStore(url, timeout_seconds=30, lease_ms=15000)
    limits = RateLimits(SharedLimits(store, MemoryStore()), LimitDefaults())
    key = Key(7, 1, "test", "fb-test", "user", KeyTerms(requests_per_minute=60, tokens_per_minute=4000), 0)
    async def one():
        try:
            await limits.admission(key, []).take_tokens("m", 20, 80)
            return 1
        except RateLimited:
            return 0
    print(sum(await asyncio.gather(*(one() for _ in range(count)))))
    await limits.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_two_processes_admit_exactly_one_limit_together(redis: RedisProcess, repository: Path) -> None:
    async def replica() -> int:
        environment = {**os.environ, "PYTHONPATH": str(repository)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", REPLICA, redis.url, "100", stdout=asyncio.subprocess.PIPE, env=environment
        )
        output, _ = await process.communicate()
        return int(json.loads(output))

    admitted = await asyncio.gather(replica(), replica())
    assert sum(admitted) == 40  # 4000 tokens of 100 each; the 60 requests that came so far are used up


async def test_two_gateways_share_one_limit(redis: RedisProcess, gateway_server: GatewayServers) -> None:
    script = Script((RequestScript((emit("ok"),)),))
    settings = {"redis_url": redis.url, "redis_timeout_seconds": PATIENT}
    async with gateway_server(script, **settings) as one:
        secret = await make_key(one.database, "limited", KeyTerms(requests_per_minute=31))
        async with (
            gateway_server(script, **settings) as other,
            one.client(secret) as first,
            other.client(secret) as second,
        ):

            async def ask(client: httpx.AsyncClient) -> int:
                return (await client.post(CHAT, json=chat())).status_code

            found = await asyncio.gather(*(ask((first, second)[i % 2]) for i in range(100)))
        assert sorted(found) == [200] * 31 + [429] * 69

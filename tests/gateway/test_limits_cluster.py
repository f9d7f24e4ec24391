"""Limits shared through a Redis Cluster of three nodes, and through the primary that a Sentinel knows."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.script import RequestScript, Script, emit
from gateway.errors import RateLimited
from gateway.limits.admission import LimitDefaults, RateLimits
from gateway.limits.clients import read_redis_url
from gateway.limits.fallback import SharedLimits
from gateway.limits.memory_store import Bound, Bounds, MemoryStore
from gateway.limits.redis_store import RedisStore
from gateway.settings import SettingsError
from pricing.key import Key, KeyTerms
from tests.gateway.conftest import DEMO, GatewayServers, make_key
from tests.gateway.redis_server import RedisProcess, running_cluster, running_redis, running_sentinel

PATIENT = 10.0  # seconds: on a busy machine the event loop is late, not Redis
OK = Script((RequestScript((emit("ok"),)),))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisProcess]]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


def chat() -> dict[str, object]:
    return {"model": DEMO, "messages": [{"role": "user", "content": "hello"}]}


def key_of(number: int) -> Key:
    return Key(number, 1, "test", "fb-test", "user", KeyTerms(requests_per_minute=10, tokens_per_minute=1000), 0)


async def test_two_gateways_share_exact_limits_on_a_cluster(
    cluster: list[RedisProcess], gateway_server: GatewayServers, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys on every node, each gateway told of another one; nothing is limited without Redis."""
    settings = {"redis_timeout_seconds": PATIENT}
    async with (
        gateway_server(OK, redis_url=cluster[0].url, **settings) as one,
        gateway_server(OK, redis_url=cluster[1].url, **settings) as other,
    ):
        terms = KeyTerms(requests_per_minute=10)
        secrets = [await make_key(one.database, f"limited {number}", terms) for number in range(6)]

        async def ask(secret: str, number: int) -> int:
            async with (one, other)[number % 2].client(secret) as client:
                return (await client.post("/v1/chat/completions", json=chat())).status_code

        for secret in secrets:
            found = await asyncio.gather(*(ask(secret, number) for number in range(30)))
            assert sorted(found) == [200] * 10 + [429] * 20
        for server in (one, other):
            async with server.client() as client:
                metrics = (await client.get("/metrics")).text
            assert "farebox_limits_shared 1.0" in metrics
            assert "farebox_limit_fallbacks_total 0.0" in metrics
    assert "Redis is away" not in caplog.text


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{0}", "redis+cluster://127.0.0.1:1,127.0.0.1:{1}"])
async def test_slots_and_tokens_hold_wherever_a_key_is(cluster: list[RedisProcess], url: str) -> None:
    """The first node named may be away."""
    ports = [node.port for node in cluster]
    stores = [RedisStore(url.format(*ports), timeout_seconds=PATIENT, lease_ms=15_000) for _ in range(2)]
    for number in range(12):
        scope = f"{url[:9]}{number}"
        bounds = Bounds(Bound(scope, 9), Bound(scope, 500), Bound(scope, 3))
        levels = await asyncio.gather(*(stores[visit % 2].enter(f"v{visit}", bounds) for visit in range(40)))
        admitted = [f"v{visit}" for visit in range(40) if levels[visit].refused is None]
        assert len(admitted) == 3
        taken = await asyncio.gather(*(stores[0].take(visit, bounds, 200) for visit in admitted))
        assert sorted(level.refused or "" for level in taken) == ["", "", "tokens"]
        for visit in admitted:
            stores[0].leave(visit, bounds, 0)
        while (await stores[1].look(bounds)).concurrent.used:
            await asyncio.sleep(0.01)
        assert (await stores[1].look(bounds)).tokens.used == 0
    for store in stores:
        await store.close()


async def test_a_call_that_was_given_up_leaves_no_answer_to_another_one(cluster: list[RedisProcess]) -> None:
    store = RedisStore(cluster[0].url, timeout_seconds=PATIENT, lease_ms=15_000)
    bounds = [Bounds(requests=Bound(f"given up {number}", 1000)) for number in range(20)]
    await store.enter("first", bounds[0])
    calls = [asyncio.create_task(store.enter(f"v{number}", bounds[number % 20])) for number in range(200)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    for number in range(20):
        known = await store.look(bounds[number])
        assert known.refused is None
        assert 0 <= known.requests.used <= 11
        assert known.tokens.used == 0
    await store.close()


async def test_a_node_that_dies_is_redis_away_until_the_cluster_is_whole_again(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as nodes:
        store = RedisStore(nodes[0].url, timeout_seconds=PATIENT, lease_ms=15_000)
        shared = SharedLimits(store, MemoryStore())
        await shared.open()
        limits = RateLimits(shared, LimitDefaults())
        keys = [key_of(number) for number in range(9)]
        for key in keys:
            await limits.admission(key, []).enter("m")
        nodes[2].kill()
        admitted = []
        for key in keys:
            for _ in range(20):
                try:
                    await limits.admission(key, []).enter("m")
                    admitted.append(key.id)
                except RateLimited:
                    break
        assert [admitted.count(key.id) for key in keys] == [9] * 9  # by what this process admitted
        assert not shared.shared
        nodes[2].start()
        while not shared.shared:
            await asyncio.sleep(0.05)
        assert (await store.look(Bounds(requests=Bound("0", 10)))).refused is None
        await limits.close()


async def answer(redis: RedisProcess, command: str, wanted: str) -> None:
    """Returns once its answer holds this."""
    line = ["redis-cli", "-p", str(redis.port), *command.split()]
    while wanted not in subprocess.run(line, check=True, capture_output=True, text=True).stdout:
        await asyncio.sleep(0.1)


async def test_a_sentinels_primary_is_followed_when_it_changes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("primary", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    bounds = Bounds(requests=Bound("7", 3))
    with (
        running_redis(folders[0]) as primary,
        running_redis(folders[1], "--replicaof", "127.0.0.1", str(primary.port)) as replica,
        running_sentinel(folders[2], primary) as sentinel,
    ):
        store = RedisStore(
            f"redis+sentinel://127.0.0.1:{sentinel.port}/limits", timeout_seconds=PATIENT, lease_ms=15_000
        )
        shared = SharedLimits(store, MemoryStore())
        await shared.open()
        await answer(sentinel, "sentinel replicas limits", "slave-priority")
        await answer(replica, "info replication", "master_link_status:up")
        assert [(await shared.enter(f"v{n}", bounds)).refused for n in range(4)] == [None, None, None, "requests"]
        primary.kill()
        await shared.enter("v4", bounds)  # finds it gone
        assert not shared.shared
        while not shared.shared:
            await asyncio.sleep(0.05)
        assert (await store.look(bounds)).requests.used == 3  # what was copied before it died
        await shared.close()


async def test_a_sentinel_named_as_a_server_stops_the_start(tmp_path: Path, gateway_server: GatewayServers) -> None:
    with running_redis(tmp_path) as primary, running_sentinel(tmp_path, primary) as sentinel:
        server = gateway_server(OK, redis_url=f"redis://127.0.0.1:{sentinel.port}")
        with pytest.raises(SettingsError, match=r"redis\+sentinel://host:26379/mymaster"):
            await server.__aenter__()


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://127.0.0.1", "redis+cluster://"),
        ("redis+ring://127.0.0.1", "redis+cluster://"),
        ("redis://a:1,b:2/0", "several hosts"),
        ("redis+sentinel://127.0.0.1:26379", "redis+sentinel://host:26379/mymaster"),
        ("redis://:hunter2@127.0.0.1/0?colour=red", "colour"),
        ("redis://:hunter2@127.0.0.1:many/0", "port"),
        ("redis://:hunt#er2@127.0.0.1/0", "%23"),
        ("redis+cluster://127.0.0.1/3", "database"),
        ("redis://127.0.0.1/0?socket_timeout=soon", "options"),
    ],
)
async def test_a_url_that_cannot_be_is_refused_in_one_sentence(
    url: str, named: str, gateway_server: GatewayServers
) -> None:
    with pytest.raises(SettingsError) as caught:
        async with gateway_server(OK, redis_url=url):
            pass
    assert named in str(caught.value)
    assert "FAREBOX_REDIS_URL" in str(caught.value)
    assert "hunt" not in str(caught.value)


def test_hosts_ports_and_options_of_urls() -> None:
    address = read_redis_url("rediss+sentinel://u:p%40@a:1,[::1]:2/limits?db=3&sentinel_password=s")
    assert (address.kind, address.service, address.nodes) == ("sentinel", "limits", [("a", 1), ("::1", 2)])
    assert address.options["password"] == "p@"
    assert address.options["db"] == 3
    assert read_redis_url("redis+cluster://a").nodes == [("a", 6379)]
    assert read_redis_url("unix:///run/redis.sock").options["path"] == "/run/redis.sock"

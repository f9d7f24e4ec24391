"""The Redis that the settings name: one server, a Redis Cluster, or the primary that Redis Sentinels know.

redis://user:password@host:6379/0, rediss://... (TLS), unix:///path
redis+cluster://host:6379,other:6379                    some of its nodes; redis:// to one of them will do, too
redis+sentinel://host:26379,other:26379/mymaster        Sentinels, and the name of what they watch
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, NoScriptError, RedisError, ResponseError

CONNECTIONS_MAX = 64
CONNECT_SECONDS = 5.0  # to learn what it is and where a cluster's nodes are; the probe waits for this, no request does
PORTS = {"": 6379, "cluster": 6379, "sentinel": 26379}
OF_SENTINELS = "sentinel_"

Client = Redis | RedisCluster


class RedisUnsuitableError(RedisError):
    """It answers, but isn't what the URL says; the sentence says what to write."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A URL, read. `kind` is "", "cluster" or "sentinel"; "" may turn out to be a cluster.

    `options` are those of a connection, `service` is the Sentinels' name for what they watch.
    """

    kind: str
    options: dict[str, Any]
    nodes: list[tuple[str, int]]
    service: str


def read_redis_url(url: str) -> RedisAddress:
    """Raises ValueError with the end of a sentence that repeats no secret."""
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    if scheme not in ("redis", "rediss", "unix") or kind not in PORTS or (scheme == "unix" and kind):
        raise ValueError("it begins with redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://")
    credentials, at, hosts = parts.netloc.rpartition("@")
    names = hosts.split(",")
    if len(names) > 1 and not kind:
        raise ValueError("several hosts are for redis+cluster:// and redis+sentinel://")
    service = parts.path.strip("/") if kind == "sentinel" else ""
    if kind == "sentinel" and not service:
        raise ValueError("behind the Sentinels it names what they watch: redis+sentinel://host:26379/mymaster")
    path = "" if service else parts.path
    try:
        first = urlunsplit((scheme, f"{credentials}{at}{names[0]}", path, parts.query, ""))
        options: dict[str, Any] = {**parse_url(first)}
        nodes = [_node(name, PORTS[kind]) for name in names]
    except ValueError:  # its text may show a part of a password
        raise ValueError(
            "its host, port or options can't be read; in a password @ / # : are written %40 %2F %23 %3A"
        ) from None
    _check(kind, options)
    return RedisAddress(kind, options, nodes, service)


def _check(kind: str, options: dict[str, Any]) -> None:
    known = {name: value for name, value in options.items() if not (kind and name.startswith(OF_SENTINELS))}
    connection_class = known.pop("connection_class", Connection)
    try:
        connection_class(**known)  # connects to nothing
    except TypeError:
        unknown = sorted(known.keys() - {"host", "port", "path", "db", "username", "password"})
        raise ValueError(f"it has an option that isn't known: {', '.join(unknown)}") from None
    if kind == "cluster" and options.get("db"):
        raise ValueError("a Redis Cluster has no database but 0")


def _node(name: str, port: int) -> tuple[str, int]:
    found = urlsplit(f"redis://{name}")
    return found.hostname or "localhost", found.port or port


class LimitsRedis:
    """Runs scripts on it, with a bounded number of connections. It belongs to one event loop.

    What it raises is redis-py's: RedisError, or OSError. It retries nothing, which would double a bounded latency.
    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._address = read_redis_url(url)
        self._timeout_seconds = timeout_seconds
        self._cluster = self._address.kind == "cluster"
        self._client: Client | None = None
        self._sentinels: list[Redis] = []
        self._opening = asyncio.Lock()
        # A cluster's and a Sentinel's pools don't wait for a connection, they fail.
        self._calls = asyncio.Semaphore(CONNECTIONS_MAX)

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """What the script answers; its keys share a hash tag."""
        client = self._client or await self._open()
        try:
            async with self._calls:
                return await _run(client, script, keys, arguments)
        except MovedError:  # it has become one of a cluster, or didn't say that it is
            if isinstance(client, Redis):
                await self._forget(client)
                self._cluster = True
            raise

    async def check(self) -> None:
        """Return when it works: of a cluster, every primary. Raises RedisUnsuitableError, too."""
        async with asyncio.timeout(CONNECT_SECONDS):
            client = self._client or await self._open()
            if isinstance(client, RedisCluster):
                await client.initialize()
                nodes = client.get_primaries()
                found = await asyncio.gather(*(client.cluster_info(target_nodes=node) for node in nodes))
                if any(one["cluster_state"] != "ok" for one in found):
                    raise RedisError("a node of the cluster says that it isn't whole")
            else:
                await client.ping()

    async def close(self) -> None:
        if self._client is not None:
            await self._forget(self._client)

    async def _forget(self, client: Client) -> None:
        if self._client is client:
            self._client = None
        for one in (client, *self._sentinels):
            with contextlib.suppress(RedisError, OSError):
                await one.aclose()
                if isinstance(one, Redis):
                    await one.connection_pool.disconnect()
        self._sentinels.clear()

    async def _open(self) -> Client:
        async with self._opening:
            if self._client is None:
                client: Client = self._sentinels_primary() if self._address.kind == "sentinel" else self._server()
                if not (self._cluster or self._address.kind):
                    self._cluster = await self._is_cluster(client)
                if self._cluster:
                    await self._forget(client)
                    client = self._cluster_client()
                self._client = client
            return self._client

    async def _is_cluster(self, client: Client) -> bool:
        try:
            found = await client.info("server")
        except ResponseError:  # it doesn't let this user ask
            return False
        mode = found.get("redis_mode") or found.get("server_mode")  # Valkey's name for it
        if mode == "sentinel":
            await self._forget(client)
            raise RedisUnsuitableError(
                "it names a Redis Sentinel; write redis+sentinel://host:26379/mymaster, with the name that it watches"
            )
        return bool(mode == "cluster")

    def _options(self) -> dict[str, Any]:
        own = {name: value for name, value in self._address.options.items() if not name.startswith(OF_SENTINELS)}
        # No limits of time of its own: they would count the time in which our event loop was held up.
        alone = {"socket_timeout": None, "socket_connect_timeout": None, "retry": Retry(NoBackoff(), 0)}
        return alone | own

    def _server(self) -> Redis:
        return Redis.from_pool(BlockingConnectionPool(max_connections=CONNECTIONS_MAX, timeout=None, **self._options()))

    def _cluster_client(self) -> RedisCluster:
        options = self._options()
        for name in ("host", "port", "db"):
            options.pop(name, None)
        options["ssl"] = options.pop("connection_class", None) is SSLConnection
        nodes = [ClusterNode(host, port) for host, port in self._address.nodes]
        # 0: a slot that has moved is noted; at any other number all connections are closed every so often.
        return RedisCluster(startup_nodes=nodes, max_connections=CONNECTIONS_MAX, reinitialize_steps=0, **options)

    def _sentinels_primary(self) -> Redis:
        options = self._options()
        for name in ("host", "port"):
            options.pop(name, None)
        ssl = options.pop("connection_class", None) is SSLConnection
        of_sentinels = {
            name.removeprefix(OF_SENTINELS): value
            for name, value in self._address.options.items()
            if name.startswith(OF_SENTINELS)
        }
        sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py's
            self._address.nodes,
            sentinel_kwargs={"socket_connect_timeout": self._timeout_seconds, "ssl": ssl, **of_sentinels},
            ssl=ssl,
            **options,
        )
        self._sentinels = sentinel.sentinels
        client: Redis = sentinel.master_for(self._address.service, max_connections=CONNECTIONS_MAX)
        return client


async def _run(client: Client, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
    where = {}
    if isinstance(client, RedisCluster):
        await client.initialize()
        # Named here: left to itself, redis-py 8 sends a script to any node and follows the redirection.
        where["target_nodes"] = client.get_node_from_key(keys[0])
    parts = (len(keys), *keys, *arguments)
    try:
        return await client.execute_command("EVALSHA", _digest(script), *parts, **where)
    except NoScriptError:
        return await client.execute_command("EVAL", script, *parts, **where)


@cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()  # Redis's own name for it

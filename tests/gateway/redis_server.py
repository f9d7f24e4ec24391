"""Debian's redis-server for a test: on a free port, in a folder of its own, gone afterwards."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.programs import missing, starts


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class RedisProcess:
    """A redis-server that can be killed and started again on the same port; `options` are more of its settings."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None
        return self._process

    def start(self, *program: str) -> None:
        """Returns when it listens."""
        command = [*(program or ("redis-server", "--save", "", "--appendonly", "no", "--dir", str(self._folder)))]
        command += ["--port", str(self.port), "--bind", "127.0.0.1", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError("redis-server doesn't listen")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It is there, and doesn't answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[RedisProcess]:
    """Skips the test where there is no redis-server; fails it in CI."""
    _require("redis-server")
    redis = RedisProcess(folder, *options)
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()


@contextmanager
def running_cluster(folder: Path) -> Iterator[list[RedisProcess]]:
    """A Redis Cluster of three, each with a third of the slots."""
    _require("redis-server")
    _require("redis-cli")
    nodes = []
    for number in range(3):
        place = folder / f"node-{number}"
        place.mkdir()
        # The bus's own default, port + 10,000, may be no port at all.
        bus = ("--cluster-port", str(free_port()), "--cluster-node-timeout", "1000")
        nodes.append(RedisProcess(place, "--cluster-enabled", "yes", *bus))
    try:
        for node in nodes:
            node.start()
        addresses = [f"127.0.0.1:{node.port}" for node in nodes]
        command = ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        for node in nodes:  # each learns for itself that all are there
            status = ["redis-cli", "-p", str(node.port), "cluster", "info"]
            while b"cluster_state:ok" not in subprocess.run(status, check=True, capture_output=True).stdout:
                time.sleep(0.05)
        yield nodes
    finally:
        for node in nodes:
            node.kill()


@contextmanager
def running_sentinel(folder: Path, primary: RedisProcess) -> Iterator[RedisProcess]:
    """A Sentinel that watches it as "limits", and takes it for dead after half a second."""
    _require("redis-sentinel")
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"sentinel monitor limits 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds limits 500\nsentinel failover-timeout limits 2000\n"
    )
    sentinel = RedisProcess(folder)
    sentinel.start("redis-sentinel", str(settings))
    try:
        yield sentinel
    finally:
        sentinel.kill()


def _require(program: str) -> None:
    starts(program)
    if shutil.which(program) is None:
        package = {"redis-server": "redis-server", "redis-cli": "redis-tools"}.get(program, program)
        missing(program, f"install Debian's package `{package}`.")

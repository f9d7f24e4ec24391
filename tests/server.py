"""A gateway in a subprocess, as a user starts it, on a free port."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from openai import AsyncOpenAI, OpenAI

from tests.programs import starts

START_SECONDS_MAX = 240


@dataclass
class Server:
    """A running `farebox serve`. `output` is everything it wrote to stdout and stderr."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    environment: dict[str, str]
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return self.environment.get("FAREBOX_BOOTSTRAP_KEY", "none")

    @property
    def admin_key(self) -> str:
        return self.environment["FAREBOX_ADMIN_KEY"]

    @property
    def output(self) -> str:
        return (self.folder / "server.log").read_text()

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False)

    def async_client(self, key: str | None = None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key or self.key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=120, trust_env=False)

    def openai(self, key: str | None = None) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1/openai", api_key=key or self.key, max_retries=0, timeout=120)

    def async_openai(self, key: str | None = None) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1/openai", api_key=key or self.key, max_retries=0, timeout=120)

    def farebox(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another `farebox` command on the same settings."""
        return run_farebox(self.environment, *arguments)

    def assert_no_secrets(self, *more: str) -> None:
        """Neither the log nor a file of the data folder holds a key in clear."""
        known = ("FAREBOX_BOOTSTRAP_KEY", "FAREBOX_ADMIN_KEY", "FAREBOX_WEBHOOK_SECRET")
        keys = [*more, *(self.environment[name] for name in known if name in self.environment)]
        for path in filter(Path.is_file, self.folder.rglob("*")):
            content = path.read_bytes()
            for key in keys:
                assert key.encode() not in content, f"{path.name} holds a key in clear"

    def find_port(self) -> None:
        """The port that the system chose, from the log."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if found := re.search(r"listening on http://\S+:(\d+);", self.output):
                self.port = int(found[1])
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the server didn't listen:\n{self.output[-4000:]}")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        with self.client() as client:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    break
                if client.get("/health/ready").status_code == 200:
                    return
                time.sleep(0.2)
        raise AssertionError(f"the server didn't become ready:\n{self.output[-4000:]}")

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def farebox_environment(folder: Path, **settings: str) -> dict[str, str]:
    """The test's own settings in a clean environment: nothing of the developer's leaks in."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FAREBOX_")}
    return environment | {"FAREBOX_DATA_DIR": str(folder / "data"), "FAREBOX_PORT": "0"} | settings


def run_farebox(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@contextmanager
def start_server(folder: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    """`farebox serve` with these settings; stopped at the end. It listens, but may still be loading."""
    starts("a gateway")
    environment = farebox_environment(folder, **settings)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "serve", *arguments],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, folder, environment)
    try:
        server.find_port()
        yield server
    finally:
        server.stop()

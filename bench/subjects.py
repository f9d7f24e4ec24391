"""What is measured: each subject is a server on loopback with an engine of its own, started here and stopped here."""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path

import httpx

from bench import engine_settings, machine

START_SECONDS_MAX = 300
STOP_SECONDS_MAX = 30
# vLLM's servers take any number of requests. Farebox refuses beyond 4 x `max_num_seqs`, unless this says otherwise.
QUEUE = {"max_num_queued_reqs": 4096}


class Subject(ABC):
    """`pid` is the front end's process, the one whose CPU and memory count. Its log goes into `folder`."""

    name = ""
    title = ""
    url = ""
    key = "none"
    pid = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None:
        """Return when it answers. Raises RuntimeError with the end of its log."""

    def launch(self, command: list[str], **environment: str) -> None:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=engine_settings.environment() | environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None
        return self._process

    def wait_for(self, path: str) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        with httpx.Client(base_url=self.url, trust_env=False, timeout=5) as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    if client.get(path).status_code == 200:
                        return
                time.sleep(0.3)
        raise RuntimeError(f"{self.title} did not start:\n{self.log.read_text()[-3000:]}")

    def pause(self) -> None:
        """Let its processes, which are a session of their own, stand still."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Ends it and the processes that it started."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.resume()
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS_MAX)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Vllm(Subject):
    name = "vllm"
    title = "vLLM's Python server"

    def start(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        module = "vllm.entrypoints.openai.api_server"
        self.launch([sys.executable, "-m", module, *engine_settings.flags(), "--port", str(port)])
        self.wait_for("/health")


class VllmRust(Subject):
    """vLLM's Rust front end: the child of a Python process that starts it and the engine."""

    name = "vllm-rust"
    title = "vLLM's Rust front end"

    def __init__(self, folder: Path, binary: Path) -> None:
        super().__init__(folder)
        self._binary = binary.resolve()

    def start(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.launch(
            [sys.executable, "-m", "bench.rust_server", *engine_settings.flags(), "--port", str(port)],
            VLLM_USE_RUST_FRONTEND="1",
            VLLM_RUST_FRONTEND_PATH=str(self._binary),
        )
        self.wait_for("/health")
        parts = machine.children(self.process.pid)
        self.pid = next(pid for pid in parts if machine.name(pid) == self._binary.name[:15])


class Farebox(Subject):
    """Everything on: a prepaid account, a key with a limit of its own, limits of all three kinds, metrics, log."""

    name = "farebox"
    title = "Farebox, SQLite"
    module = "gateway.cli"

    def settings(self) -> dict[str, str]:
        return {}

    def start(self) -> None:
        admin_key = secrets.token_urlsafe(32)
        self.launch(
            [sys.executable, "-m", self.module, "serve"],
            **{
                "FAREBOX_PORT": "0",
                "FAREBOX_DATA_DIR": str(self.folder / "data"),
                "FAREBOX_ADMIN_KEY": admin_key,
                "FAREBOX_ENGINE": json.dumps(engine_settings.OPTIONS | QUEUE),
                "FAREBOX_LIMIT_REQUESTS_PER_MINUTE": "1000000",
                "FAREBOX_LIMIT_TOKENS_PER_MINUTE": "1000000000",
                "FAREBOX_LIMIT_CONCURRENT_REQUESTS": "10000",
                **self.settings(),
            },
        )
        self.url = f"http://127.0.0.1:{self._port()}"
        self.wait_for("/health/ready")
        self.key = self._new_key(admin_key)

    def _port(self) -> int:
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r"listening on http://[^\s:]+:(\d+)", self.log.read_text()):
                return int(found[1])
            time.sleep(0.1)
        raise RuntimeError(f"{self.title} did not start:\n{self.log.read_text()[-3000:]}")

    def _new_key(self, admin_key: str) -> str:
        headers = {"authorization": f"Bearer {admin_key}"}
        with httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60) as client:
            prepaid = {"kind": "prepaid", "amount_usd": "100000"}
            account = client.post("/admin/accounts", json={"name": "bench", "limit": prepaid}).raise_for_status().json()
            terms = {"limit": {"kind": "month", "amount_usd": "100000"}}
            wanted = {"account_id": account["id"], "name": "bench", "terms": terms}
            created = client.post("/admin/keys", json=wanted).raise_for_status().json()
        return str(created["secret"])


class FareboxPostgres(Farebox):
    name = "farebox-postgres"
    title = "Farebox, PostgreSQL"

    def __init__(self, folder: Path, database_url: str) -> None:
        super().__init__(folder)
        self._database_url = database_url

    def settings(self) -> dict[str, str]:
        return {"FAREBOX_DATABASE_URL": self._database_url}

    def start(self) -> None:
        environment = engine_settings.environment() | self.settings()
        subprocess.run(
            [sys.executable, "-m", "gateway.cli", "db", "upgrade"], env=environment, check=True, capture_output=True
        )
        super().start()


class FareboxFree(Farebox):
    """The same code without auth, limits, reservations, ledger and metrics: `bench.free`."""

    name = "farebox-free"
    title = "Farebox without the meter"
    module = "bench.free"

    def _new_key(self, admin_key: str) -> str:
        return "none"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

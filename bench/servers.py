"""`python -m bench.servers`: HTTP servers under one bare application, and what each costs per token and request."""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench import engine_settings, load, machine
from bench.run import SETTLE_SECONDS
from bench.scenarios import QUICK, Scenario, chosen
from bench.subjects import Subject, free_port

REPEATS = 3
APP = "bench.bare_app:app"
UVICORN = ["uvicorn", APP, "--no-access-log", "--log-level", "error", "--ws", "none"]
# A module and its arguments, the last of which wants the port.
COMMANDS = {
    "uvicorn as the gateway runs it": ["bench.bare_app"],
    "uvicorn, uvloop, httptools": [*UVICORN, "--loop", "uvloop", "--http", "httptools", "--port"],
    "uvicorn, asyncio, httptools": [*UVICORN, "--loop", "asyncio", "--http", "httptools", "--port"],
    "uvicorn, uvloop, h11": [*UVICORN, "--loop", "uvloop", "--http", "h11", "--port"],
    "granian, uvloop": ["granian", APP, "--interface", "asgi", "--loop", "uvloop", "--no-ws", "--port"],
    "hypercorn, uvloop": ["hypercorn", APP, "--worker-class", "uvloop", "--bind"],
}


class BareServer(Subject):
    """One server with the bare application."""

    def __init__(self, folder: Path, name: str, command: list[str]) -> None:
        self.name = name.replace(",", "").replace(" ", "-")
        self.title = name
        self._command = command
        super().__init__(folder)

    def start(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        place = f"127.0.0.1:{port}" if self._command[-1] == "--bind" else str(port)
        self.launch([sys.executable, "-m", *self._command, place])
        self.wait_for("/")
        # Some serve from a child; a parent that only waits adds nothing.
        self.pids = [self.process.pid, *machine.children(self.process.pid)]

    def cpu_seconds(self) -> float:
        return sum(machine.cpu_seconds(pid) for pid in self.pids)


def main() -> None:
    print("| server | streams, CPU/token, µs | one token, CPU/request, ms |\n|---|---|---|")
    for name, command in COMMANDS.items():
        with tempfile.TemporaryDirectory(prefix="farebox-bench-") as folder:
            server = BareServer(Path(folder), name, command)
            try:
                server.start()
                streams, requests = (_measure(server, scenario) for scenario in chosen(list(QUICK), quick=False))
            finally:
                server.stop()
        print(f"| {name} | {streams[0]:.1f} | {requests[1]:.3f} |", flush=True)


def _measure(server: BareServer, scenario: Scenario) -> tuple[float, float]:
    """Microseconds per token and milliseconds per request, the medians."""
    samples = load.prompts(scenario, engine_settings.MODEL, 0)
    per_token, per_request = [], []
    for _ in range(1 + REPEATS):
        before = server.cpu_seconds()
        seen = load.run(scenario, server, "bare", samples, 0)
        time.sleep(SETTLE_SECONDS)
        spent = server.cpu_seconds() - before
        if seen.failed:
            raise RuntimeError(f"{server.title}: {seen.failed} requests failed: {seen.error[-300:]}")
        per_token.append(spent / seen.tokens * 1e6)
        per_request.append(spent / seen.completed * 1e3)
    return statistics.median(per_token[1:]), statistics.median(per_request[1:])  # the first warms up


if __name__ == "__main__":
    main()

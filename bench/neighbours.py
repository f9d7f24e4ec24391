"""What one client does to the others: `python -m bench.neighbours`.

Sixteen plain streams run all the time, and `/health/live` is asked ten times a second. One attacker after the other
(`bench.attackers`) joins them for some seconds, with as long without one before and after. Told are the gaps between
the streams' tokens with and without it, in one run on one machine. On few cores the attacker, the streams' client, the
engine and the gateway share them, so "ordinary" is what a harmless client of this kind costs.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench import machine
from bench.attackers import ATTACKERS, CHAT
from bench.engine_settings import MODEL, MODEL_NAME
from bench.subjects import Farebox

STREAMS = 16
TOKENS = 4000
PROBES_PER_SECOND = 10
REST_SECONDS = 2.0  # until what an attacker left has ended
GAP_RATIO_MAX = 2.0
HEALTH_SECONDS_MAX = 0.2


@dataclass
class Seen:
    """Seconds. `gaps` are those between two events of one stream, `health` the answers of `/health/live`."""

    gaps: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def gap(self) -> float:
        return quantile(self.gaps, 99)


@dataclass(frozen=True)
class Place:
    host: str
    port: int
    key: str
    pid: int


def quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else 0.0


def silent_tokens() -> dict[str, int]:
    """Biases against the tokens that have no text, and so no event: they would look like gaps."""
    added = json.loads((MODEL / "tokenizer.json").read_text())["added_tokens"]
    return {str(token["id"]): -100 for token in added if token["special"]}


class Neighbours:
    """The streams and the probe, which go on while `seen` changes hands."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._never = silent_tokens()
        self.seen = Seen()

    async def __aenter__(self) -> "Neighbours":
        streams = [asyncio.create_task(self._keep_streaming(number)) for number in range(STREAMS)]
        self._tasks = [*streams, asyncio.create_task(self._keep_probing())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def watch(self, seconds: float) -> Seen:
        """What is seen in these seconds."""
        self.seen = seen = Seen()
        with machine.Watch(self._place.pid) as process:
            await asyncio.sleep(seconds)
        seen.peak_bytes = process.bytes_peak
        return seen

    async def _keep_streaming(self, number: int) -> None:
        body = {
            "model": MODEL_NAME,
            "messages": [{"role": "user", "content": f"Count from {number}."}],
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "logit_bias": self._never,
            "stream": True,
        }
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._stream(json.dumps(body).encode())
            await asyncio.sleep(0.05)

    async def _stream(self, body: bytes) -> None:
        reader, writer = await asyncio.open_connection(self._place.host, self._place.port)
        try:
            writer.write(self._head(f"POST {CHAT}", len(body)) + body)
            await reader.readuntil(b"\n\n")
            last = time.perf_counter()
            while True:
                # Until the next event: what came in one piece with it is no gap of the server's.
                await reader.readuntil(b"\n\n")
                now = time.perf_counter()
                self.seen.gaps.append(now - last)
                last = now
        finally:
            writer.close()

    async def _keep_probing(self) -> None:
        while True:
            began = time.perf_counter()
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(self._place.host, self._place.port)
                try:
                    writer.write(self._head("GET /health/live", 0))
                    await reader.read()
                finally:
                    writer.close()
                self.seen.health.append(time.perf_counter() - began)
            await asyncio.sleep(1 / PROBES_PER_SECOND)

    def _head(self, what: str, length: int) -> bytes:
        lines = [
            f"{what} HTTP/1.1",
            "host: bench",
            f"authorization: Bearer {self._place.key}",
            f"content-length: {length}",
            "connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode()


async def attacked(neighbours: Neighbours, place: Place, name: str, seconds: float) -> Seen:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.attackers", name, place.host, str(place.port), place.key, str(seconds)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        seen = await neighbours.watch(seconds + 0.5)
        output, _ = await asyncio.wait_for(process.communicate(), timeout=seconds + 60)
        seen.statuses.update(json.loads(output))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return seen


def row(name: str, quiet: Seen, seen: Seen) -> str:
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(seen.statuses.items()))
    return (
        f"| {name} | {quiet.gap * 1e3:.0f} | {seen.gap * 1e3:.0f} | {seen.gap / quiet.gap:.1f} "
        f"| {max(seen.gaps) * 1e3:.0f} | {quantile(seen.health, 99) * 1e3:.0f} / {max(seen.health) * 1e3:.0f} "
        f"| {seen.peak_bytes / 2**20:.0f} | {statuses} |"
    )


async def measure(place: Place, names: Sequence[str], seconds: float) -> list[str]:
    """Prints a table; gives the attackers that do more than they may."""
    faults = []
    print("| attacker | p99 gap without | with, ms | ratio | longest | `/health/live` p99 / max, ms | MiB | answers |")
    print("|---|---|---|---|---|---|---|---|")
    async with Neighbours(place) as neighbours:
        await neighbours.watch(seconds)  # to warm up
        before = await neighbours.watch(seconds)
        for name in names:
            seen = await attacked(neighbours, place, name, seconds)
            await neighbours.watch(REST_SECONDS)
            after = await neighbours.watch(seconds)
            quiet = Seen(before.gaps + after.gaps)
            print(row(name, quiet, seen), flush=True)
            if seen.gap > GAP_RATIO_MAX * quiet.gap or quantile(seen.health, 99) > HEALTH_SECONDS_MAX:
                faults.append(name)
            before = after
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.neighbours", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each attacker, and before it. Default: 10.")
    parser.add_argument("--attackers", default=",".join(ATTACKERS), help=f"some of {', '.join(ATTACKERS)}")
    options = parser.parse_args()
    names = options.attackers.split(",")
    if unknown := [name for name in names if name not in ATTACKERS]:
        parser.error(f"there is no attacker {unknown[0]!r}")
    print(machine.describe(), flush=True)
    with tempfile.TemporaryDirectory(prefix="farebox-bench-") as folder:
        subject = Farebox(Path(folder))
        try:
            subject.start()
            address = urlsplit(subject.url)
            place = Place(address.hostname or "", address.port or 0, subject.key, subject.pid)
            faults = asyncio.run(measure(place, names, options.seconds))
        finally:
            subject.stop()
    if faults:
        sys.exit(f"more than twice the gap, or {HEALTH_SECONDS_MAX * 1e3:g} ms for a probe: {', '.join(faults)}")


if __name__ == "__main__":
    main()

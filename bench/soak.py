"""Full load for a long time, to see what grows: `python -m bench.soak --minutes 10`.

The callers do what clients do: read streams to their end, take answers in one piece, leave in the middle, and send
what is refused. Every ten seconds a line says what the gateway's process holds; at the end, when nothing runs any more,
its tasks, file descriptors and reservations must be as few as before, and its memory after the second minute within 5%.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx

from bench import machine
from bench.subjects import Farebox

STREAMS = 64
EVERY_SECONDS = 10.0
SETTLED_AFTER_SECONDS = 120  # caches, pools and allocators have their size by then
GROWTH_MAX = 0.05
REST_SECONDS = 60.0  # for what has ended to be gone
IDLE_DESCRIPTORS = 8  # what a pool may hold more than before: the database's, a scrape's


class Target(Protocol):
    """A gateway, and a key for it."""

    @property
    def url(self) -> str: ...

    @property
    def key(self) -> str: ...


@dataclass(frozen=True)
class Reading:
    """What the process holds. Sizes in bytes; `seconds` since the load began."""

    seconds: float
    resident: int
    descriptors: int
    tasks: int
    reservations: int
    running: int

    def __str__(self) -> str:
        return (
            f"{self.seconds:6.0f} s  {self.resident / 2**20:8.1f} MiB  {self.descriptors:4d} fds  {self.tasks:4d} tasks"
            f"  {self.reservations:4d} reservations  {self.running:4d} running"
        )


async def read(http: httpx.AsyncClient, pid: int, began: float) -> Reading:
    """From /proc, and from the gateway's own metrics."""
    exposed = (await http.get("/metrics")).text
    gauges: dict[str, float] = defaultdict(float)
    for line in exposed.splitlines():
        if line.startswith("farebox_"):
            name, _, value = line.rpartition(" ")
            gauges[name.partition("{")[0]] += float(value)
    return Reading(
        seconds=time.monotonic() - began,
        resident=machine.resident_bytes(pid),
        descriptors=machine.descriptors(pid),
        tasks=int(gauges["farebox_tasks"]),
        reservations=int(gauges["farebox_reservations_open"]),
        running=int(gauges["farebox_requests_running"] + gauges["farebox_requests_waiting"]),
    )


async def call(http: httpx.AsyncClient, model: str, chance: random.Random) -> str:
    """One request of some kind; tells how it ended."""
    kind = chance.choices(["stream", "whole", "leave", "refused"], [60, 15, 15, 10])[0]
    body: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": f"Tell me about number {chance.randrange(10**6)}."}],
        "max_tokens": chance.choice([8, 64, 128]),
        "ignore_eos": True,
    }
    if kind == "refused":
        body["temperature"] = 99
    if kind in ("whole", "refused"):
        status = (await http.post("/v1/chat/completions", json=body)).status_code
        return kind if status == (422 if kind == "refused" else 200) else f"{kind}: {status}"
    async with http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}) as answer:
        events = 0
        async for line in answer.aiter_lines():
            events += bool(line)
            if kind == "leave" and events == 3:
                return kind
            if line == "data: [DONE]":
                return kind
    return f"{kind}: no end"


async def load(target: Target, model: str, seconds: float, streams: int = STREAMS) -> Counter[str]:
    """Callers for this long, each with a connection of its own; how their requests ended, by kind."""
    ended: Counter[str] = Counter()
    until = time.monotonic() + seconds
    headers = {"authorization": f"Bearer {target.key}"}

    async def caller(number: int) -> None:
        chance = random.Random(number)
        async with httpx.AsyncClient(base_url=target.url, headers=headers, timeout=300, trust_env=False) as http:
            while time.monotonic() < until:
                try:
                    ended[await call(http, model, chance)] += 1
                except httpx.HTTPError as error:
                    ended[f"{type(error).__name__}"] += 1

    await asyncio.gather(*(caller(number) for number in range(streams)))
    return ended


async def at_rest(http: httpx.AsyncClient, pid: int, began: float) -> Reading:
    """A reading when nothing runs and the connections are gone, or what is left after REST_SECONDS."""
    until = time.monotonic() + REST_SECONDS
    last = await read(http, pid, began)
    while time.monotonic() < until:
        await asyncio.sleep(1)
        now = await read(http, pid, began)
        if now.running == now.reservations == 0 and (now.tasks, now.descriptors) == (last.tasks, last.descriptors):
            return now
        last = now
    return last


def leaks(before: Reading, after: Reading) -> list[str]:
    """What is more than it was, in words."""
    found = []
    if after.reservations or after.running:
        found.append(f"{after.reservations} reservations and {after.running} requests never ended")
    if after.tasks > before.tasks:
        found.append(f"{after.tasks - before.tasks} tasks were left")
    if after.descriptors > before.descriptors + IDLE_DESCRIPTORS:
        found.append(f"{after.descriptors - before.descriptors} file descriptors were left")
    return found


def growth(readings: list[Reading]) -> float:
    """By how much of itself the memory grew after it had settled: the mean of the last third over the first third."""
    settled = [reading.resident for reading in readings if reading.seconds >= SETTLED_AFTER_SECONDS]
    third = len(settled) // 3
    if not third:
        return 0.0
    return sum(settled[-third:]) / sum(settled[:third]) - 1


async def soak(target: Target, pid: int, model: str, seconds: float) -> list[str]:
    """Print what happens; gives the faults."""
    headers = {"authorization": f"Bearer {target.key}"}
    async with httpx.AsyncClient(base_url=target.url, headers=headers, timeout=60, trust_env=False) as http:
        await load(target, model, 5)  # pools are filled, caches made
        began = time.monotonic()
        before = await at_rest(http, pid, began)
        print(before, flush=True)
        began = time.monotonic()
        loading = asyncio.create_task(load(target, model, seconds))
        readings = []
        while not loading.done():
            await asyncio.wait({loading}, timeout=EVERY_SECONDS)
            readings.append(await read(http, pid, began))
            print(readings[-1], flush=True)
        after = await at_rest(http, pid, began)
        print(after, flush=True)
    ended = await loading
    print(", ".join(f"{count} {kind}" for kind, count in ended.most_common()))
    faults = leaks(before, after)
    faults += [f"{count} requests ended as {kind}" for kind, count in ended.items() if kind not in KINDS]
    grown = growth(readings)
    print(f"memory after minute 2: {grown:+.1%}")
    return [*faults, f"memory grew by {grown:.1%}"] if grown > GROWTH_MAX else faults


KINDS = {"stream", "whole", "leave", "refused"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subject = Farebox(Path(folder))
        try:
            subject.start()
            faults = asyncio.run(soak(subject, subject.pid, "farebox/demo", options.minutes * 60))
        finally:
            subject.stop()
    sys.exit("; ".join(faults) or None)


if __name__ == "__main__":
    main()

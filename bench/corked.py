"""What `gateway.process.corked.Corked` saves: the gateway with and without it, in pairs, on the scripted engine.

python -m bench.corked [--pairs 8]: CPU and write calls of the gateway's process for each request. Without vLLM the
front end is all there is, so that the share is larger than in service; the microseconds are the same.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

KEY = "a-key-for-this-bench-only-" + "x" * 8
STREAMS = 32
# title, tokens, requests, streamed
CASES = (
    ("one token, in one piece", 1, 2500, False),
    ("one token, streamed", 1, 2500, True),
    ("64 tokens, streamed", 64, 192, True),
)


async def serve(corked: bool, tokens: int) -> None:
    """The gateway in this process; prints its port."""
    from engine.base import EngineSpec
    from engine.script import RequestScript, Script, Step
    from engine.scripted import ScriptedEngine
    from gateway.models.catalog import load_catalog
    from gateway.models.fleet import Fleet
    from gateway.process import connections
    from gateway.process.assembly import open_gateway
    from gateway.process.http_server import Server
    from gateway.process.server import listen
    from gateway.settings import load_settings

    if not corked:
        # What is measured is the transport itself in its place.
        setattr(connections, "Corked", lambda transport, _: transport)  # noqa: B010 - mypy knows it as a class
    # As from an engine: a token, and a while until the next.
    steps = [part for _ in range(tokens) for part in (Step("emit", " token"), Step("sleep", seconds=0.02))]
    script = Script(requests=(RequestScript(tuple(steps[:-1])),))

    def engine(spec: EngineSpec) -> ScriptedEngine:
        return ScriptedEngine(script, spec)

    with tempfile.TemporaryDirectory() as folder, listen("127.0.0.1", 0) as listener:
        flags = {"data_dir": folder, "source": "scripted:", "bootstrap_key": KEY, "limit_concurrent_requests": 10**6}
        settings = load_settings({}, flags)
        fleet = Fleet(load_catalog(settings), engine)
        async with open_gateway(settings, fleet) as (gateway, _):
            await fleet.start()
            print(listener.getsockname()[1], flush=True)
            await Server(gateway).serve(sockets=[listener])


async def load(port: int, requests: int, stream: bool) -> None:
    """This many requests, over connections that are kept."""
    messages = [{"role": "user", "content": "hi"}]
    body = json.dumps({"model": "farebox/demo", "messages": messages, "stream": stream, "max_tokens": 100})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    request = f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    numbers = iter(range(requests))

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in numbers:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            if stream:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            else:
                await reader.readexactly(int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(STREAMS)))


def spent(pid: int) -> tuple[float, int]:
    """CPU seconds and write calls of a process until now (Linux)."""
    process = Path("/proc", str(pid))
    nanoseconds = sum(int(task.joinpath("schedstat").read_text().split()[0]) for task in (process / "task").iterdir())
    writes = next(line for line in (process / "io").read_text().splitlines() if line.startswith("syscw"))
    return nanoseconds / 1e9, int(writes.split()[1])


def measure(corked: bool, tokens: int, requests: int, stream: bool) -> tuple[float, float]:
    """Microseconds of CPU and write calls for each request, in a process of its own."""
    command = [sys.executable, "-m", "bench.corked", "--serve", str(tokens), *(() if corked else ("--without",))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        asyncio.run(load(port, 2 * STREAMS, stream))
        before = spent(server.pid)
        asyncio.run(load(port, requests, stream))
        after = spent(server.pid)
        server.send_signal(signal.SIGTERM)
    return (after[0] - before[0]) / requests * 1e6, (after[1] - before[1]) / requests


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.corked", description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        import uvloop

        uvloop.run(serve(not options.without, options.serve))
        return
    for title, tokens, requests, stream in CASES:
        found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        for number in range(options.pairs):
            for corked in (True, False) if number % 2 else (False, True):
                found[corked].append(measure(corked, tokens, requests, stream))
        ratios = [plain[0] / with_it[0] for with_it, plain in zip(found[True], found[False], strict=True)]
        cpu, writes = ([statistics.median(one[at] for one in found[key]) for key in (True, False)] for at in (0, 1))
        print(
            f"{title}: {cpu[0]:.0f} µs with it, {cpu[1]:.0f} without; without/with {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}); {writes[0]:.1f} and {writes[1]:.1f} write calls",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Streams for tests that watch what becomes of them."""

import asyncio
import csv
import io
import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.server import Server

DEMO = "farebox/demo"


@dataclass
class Stream:
    """What one client saw of its stream. `failure` is what httpx raised, if anything."""

    chunks: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, object] | None = None
    done: bool = False
    failure: httpx.HTTPError | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def usage(self) -> dict[str, int]:
        return next(chunk["usage"] for chunk in reversed(self.chunks) if "usage" in chunk)

    async def run(self, http: httpx.AsyncClient, max_tokens: int) -> None:
        body = {
            "model": DEMO,
            "messages": [{"role": "user", "content": "Tell me a story."}],
            "stream": True,
            "max_tokens": max_tokens,
            "ignore_eos": True,
        }
        try:
            async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for line in answer.aiter_lines():
                    self._read(line)
        except httpx.HTTPError as error:
            self.failure = error
        finally:
            self.begun.set()

    def _read(self, line: str) -> None:
        if line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                self.error = event["error"]
            else:
                self.chunks.append(event)
        if len(self.chunks) > 1:
            self.begun.set()


async def start_streams(
    http: httpx.AsyncClient, count: int, max_tokens: int
) -> "tuple[list[Stream], asyncio.Task[object]]":
    """Streams of which every one has got its first tokens, and the task in which they run on."""
    streams = [Stream() for _ in range(count)]
    running: asyncio.Task[object] = asyncio.ensure_future(
        asyncio.gather(*(stream.run(http, max_tokens) for stream in streams))
    )
    await asyncio.gather(*(stream.begun.wait() for stream in streams))
    return streams, running


async def ledger_rows(server: Server) -> list[dict[str, str]]:
    """What the ledger holds, by another process. The server has ended."""
    result = await asyncio.to_thread(server.farebox, "usage", "export")
    assert result.returncode == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))

"""What one client can send to harm the others: `python -m bench.neighbours` sends it beside their streams.

Each attacker is a body for a path, sent by some connections at a time, in a process of its own: what it costs to send
must not be measured.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.engine_settings import MODEL_NAME

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
BYTES = 4 * 2**20 - 1024
REQUESTS_MAX = 2000  # of one attacker
PAUSE_SECONDS = 0.01  # between two requests of a connection, so that refusals alone are no flood


@dataclass(frozen=True)
class Attacker:
    """`make` gives the body of a request by its number; `connections` send at a time."""

    text: str
    make: Callable[[int], bytes]
    path: str = CHAT
    connections: int = 4


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL_NAME, "messages": [{"role": "user", "content": "Hello!"}], **fields}).encode()


def schema(given: object) -> dict[str, object]:
    return {
        "max_tokens": 4,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": given}},
    }


def pattern(number: int) -> bytes:
    """400 bytes whose automaton has hundreds of thousands of states; another one each time."""
    names = {f"k{number}_{index}": {"type": "string", "pattern": "((a|b){0,130}){0,130}"} for index in range(3)}
    return chat(**schema({"type": "object", "properties": names, "required": list(names)}))


def alternatives(number: int) -> bytes:
    inner: object = {"type": "string", "maxLength": number % 100 + 1}
    for depth in range(40):
        inner = {
            "oneOf": [
                {"type": "object", "properties": {f"p{depth}": inner}},
                inner if depth % 8 == 0 else {"type": "integer"},
            ]
        }
    return chat(**schema(inner))


def named(count: int) -> dict[str, int]:
    return {f"name{index}": index for index in range(count)}


def filled(unit: str, before: str, after: str) -> bytes:
    return (before + ",".join([unit] * ((BYTES - len(before) - len(after)) // (len(unit) + 1))) + after).encode()


def prepared(body: bytes) -> Callable[[int], bytes]:
    return lambda number: body


def streams(number: int, **fields: Any) -> bytes:
    return chat(stream=True, max_tokens=2000, ignore_eos=True, seed=number, **fields)


def logprobs(number: int) -> bytes:
    return streams(number, logprobs=True, top_logprobs=20)


# More than the context holds: what is measured is the gateway, not the engine at work on a long prompt.
TURNS = [{"role": "user", "content": "Is it? " * 4}, {"role": "assistant", "content": "It is what it is. " * 4}] * 5000
OPEN = f'{{"model":"{MODEL_NAME}","messages":[{{"role":"user","content":'

ATTACKERS: dict[str, Callable[[], Attacker]] = {
    "none": lambda: Attacker("nobody", prepared(b""), connections=0),
    "ordinary": lambda: Attacker("short requests that are refused", prepared(chat(temperature=99))),
    "pattern": lambda: Attacker("a schema with an evil pattern", pattern),
    "alternatives": lambda: Attacker("a deep schema of alternatives", alternatives),
    "variables": lambda: Attacker("100,000 template variables", prepared(chat(chat_template_kwargs=named(100_000)))),
    "metadata": lambda: Attacker("200,000 names in metadata", prepared(chat(metadata=named(200_000)))),
    "messages": lambda: Attacker("10,000 messages", prepared(chat(messages=TURNS, max_tokens=1))),
    "turns": lambda: Attacker(
        "10,000 turns of Anthropic's format",
        prepared(json.dumps({"model": MODEL_NAME, "messages": TURNS, "max_tokens": 1}).encode()),
        MESSAGES,
    ),
    "items": lambda: Attacker(
        "10,000 items of a response",
        prepared(json.dumps({"model": MODEL_NAME, "input": TURNS, "max_output_tokens": 1}).encode()),
        RESPONSES,
    ),
    # What 128 streams cost that ask for nothing more: what "logprobs" is to be compared with.
    "streams": lambda: Attacker("128 plain streams", streams, connections=128),
    "logprobs": lambda: Attacker("128 streams with 20 alternatives", logprobs, connections=128),
    "refused": lambda: Attacker(
        "4 MiB that is refused, 12 at a time",
        prepared(filled('{"type":"text","text":""}', f"{OPEN}[", ']}],"temperature":99}')),
        connections=12,
    ),
    "too-long": lambda: Attacker(
        "4 MiB of text, 12 at a time",
        prepared((OPEN + '"' + "word, " * (BYTES // 6) + '"}]}').encode()),
        connections=12,
    ),
}


async def attack(attacker: Attacker, host: str, port: int, key: str, seconds: float) -> Counter[str]:
    """The statuses of what was answered within this time."""
    statuses: Counter[str] = Counter()
    until = time.monotonic() + seconds
    numbers = iter(range(REQUESTS_MAX))

    async def connection() -> None:
        while time.monotonic() < until and (number := next(numbers, None)) is not None:
            statuses[await _send(attacker.path, attacker.make(number), host, port, key)] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    sending = [asyncio.create_task(connection()) for _ in range(attacker.connections)]
    _, left = await asyncio.wait(sending, timeout=seconds) if sending else (set(), set())
    for task in left:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    statuses["cut"] += len(left)
    return +statuses


async def _send(path: str, body: bytes, host: str, port: int, key: str) -> str:
    lines = (
        f"POST {path} HTTP/1.1",
        "host: bench",
        f"authorization: Bearer {key}",
        f"content-length: {len(body)}",
        "connection: close",
    )
    try:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            status = (await reader.readline()).split()[1].decode()
            while await reader.read(2**16):
                pass
        finally:
            writer.close()
    except (OSError, IndexError) as error:
        return type(error).__name__
    return status


def main(name: str, host: str, port: str, key: str, seconds: str) -> None:
    """The attacker's process: prints its statuses as JSON."""
    print(json.dumps(asyncio.run(attack(ATTACKERS[name](), host, int(port), key, float(seconds)))))


if __name__ == "__main__":
    main(*sys.argv[1:])

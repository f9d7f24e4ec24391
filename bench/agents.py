"""Agents: conversations with tools, each turn of which sends everything that was said again, and a little more.

Measured are the last turns of each. What comes before them is the same for all of a scenario's agents, so that the
engine computes it once, for a request that isn't measured; a front end gets it whole with each turn all the same. All
of a conversation is written beforehand, so that every server is asked the same.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
from tokenizers import Tokenizer

from bench.figures import Load
from bench.neighbours import silent_tokens
from bench.scenarios import JSONObject, Scenario
from bench.target import PATH, Target

TURNS = 40  # of a conversation, measured or not
SYSTEM_TOKENS = 1500
TOOLS = 8
CALL_SHARE = 0.2  # of a turn; the rest is what the tool found
OTHERS_TOKENS = 4000
CORPUS = Path(__file__).resolve().parent.parent / "engine" / "demo" / "corpus"

Talk = list[JSONObject]


class Writer:
    """Words of the demo model's corpus, with names and numbers that come once."""

    def __init__(self, model: Path, seed: int) -> None:
        self._chance = random.Random(seed)
        self._words = [word for path in sorted(CORPUS.glob("*.toml")) for word in path.read_text().split()]
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        sample = self._text(2000)
        self._words_per_token = 2000 / len(tokenizer.encode(sample, add_special_tokens=False).ids)

    def _text(self, words: int) -> str:
        chance = self._chance
        return " ".join(
            f"{chance.randrange(16**6):x}" if chance.random() < 0.05 else chance.choice(self._words)
            for _ in range(words)
        )

    def text(self, tokens: float) -> str:
        """About so many tokens."""
        return self._text(max(1, round(tokens * self._words_per_token)))

    def talk(self, tokens: int) -> Talk:
        """A conversation of `TURNS` turns, each a call and what it found."""
        system, asked = self.text(SYSTEM_TOKENS), self.text(100)
        messages: Talk = [{"role": "system", "content": system}, {"role": "user", "content": asked}]
        each = (tokens - SYSTEM_TOKENS) / TURNS
        for turn in range(TURNS):
            arguments = json.dumps({"path": f"src/{turn}.py", "text": self.text(each * CALL_SHARE)})
            function = {"name": f"tool_{turn % TOOLS}", "arguments": arguments}
            call = {"id": f"call_{turn}", "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            found = self.text(each * (1 - CALL_SHARE))
            messages.append({"role": "tool", "tool_call_id": f"call_{turn}", "content": found})
        return messages


def tools() -> list[JSONObject]:
    fields = {"path": {"type": "string", "description": "Where it is."}, "text": {"type": "string"}}
    parameters = {"type": "object", "properties": fields, "required": ["path"]}
    return [
        {
            "type": "function",
            "function": {"name": f"tool_{number}", "description": "Works on a file. " * 8, "parameters": parameters},
        }
        for number in range(TOOLS)
    ]


def talks(scenario: Scenario, model: Path, seed: int) -> list[Talk]:
    writer = Writer(model, seed)
    shared = until(writer.talk(scenario.prompt_tokens), _first(scenario) - 1)
    return [shared + writer.talk(scenario.prompt_tokens)[len(shared) :] for _ in range(scenario.streams)]


def until(talk: Talk, turn: int) -> Talk:
    """What is sent in a turn: all until what the last call found."""
    return talk[: 2 + 2 * turn]


class Client:
    """One server, one model."""

    def __init__(self, http: httpx.AsyncClient, model: str) -> None:
        self._http = http
        self._model = model

    async def events(self, messages: Talk, tokens: int, **more: object) -> AsyncIterator[float]:
        """When each event of the answer came. Raises httpx.HTTPError."""
        body = {"model": self._model, "messages": messages, "stream": True, "max_completion_tokens": tokens, **more}
        async with self._http.stream("POST", PATH, json={**body, "ignore_eos": True, "temperature": 1.0}) as answer:
            if answer.status_code != 200:
                await answer.aread()
                answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    yield time.perf_counter()

    async def stream_on(self, gaps: list[float]) -> None:
        """One of the others, whose stream goes on and on."""
        never = silent_tokens()
        while True:
            last = None
            async for now in self.events([{"role": "user", "content": "Count."}], OTHERS_TOKENS, logit_bias=never):
                if last is not None:
                    gaps.append(now - last)
                last = now


def _http(target: Target) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {target.key}"}
    return httpx.AsyncClient(base_url=target.url, headers=headers, timeout=600, trust_env=False)


def prepare(scenario: Scenario, target: Target, model_name: str, held: Sequence[Talk]) -> None:
    """What was said before the measured turns, so that the engine knows it."""

    async def begin() -> None:
        async with _http(target) as http:
            shared = until(held[0], _first(scenario) - 1)
            async for _ in Client(http, model_name).events(shared, 1, tools=tools()):
                pass

    asyncio.run(begin())


def run(scenario: Scenario, target: Target, model_name: str, held: Sequence[Talk]) -> Load:
    """Every agent goes through its turns, one after the other; blocks until all have. The gaps are the others', where
    there are some."""
    return asyncio.run(_run(scenario, target, model_name, held))


async def _run(scenario: Scenario, target: Target, model_name: str, held: Sequence[Talk]) -> Load:
    first_token: list[float] = []
    gaps: list[float] = []
    errors: list[str] = []
    async with _http(target) as http:
        client = Client(http, model_name)

        async def agent(talk: Talk) -> None:
            for turn in range(_first(scenario), TURNS + 1):
                started = time.perf_counter()
                first = True
                try:
                    async for now in client.events(until(talk, turn), scenario.tokens, tools=tools()):
                        if first:
                            first_token.append(now - started)
                        first = False
                except httpx.HTTPError as error:
                    errors.append(repr(error))

        others = [asyncio.create_task(client.stream_on(gaps)) for _ in range(scenario.others)]
        started = time.perf_counter()
        await asyncio.gather(*map(agent, held))
        seconds = time.perf_counter() - started
        for other in others:
            other.cancel()
        for other in others:
            with suppress(asyncio.CancelledError, httpx.HTTPError):
                await other
    done = len(first_token)
    tokens = done * scenario.tokens + len(gaps)
    return Load(seconds, done, len(errors), tokens, first_token, gaps, error=errors[0] if errors else "")


def _first(scenario: Scenario) -> int:
    """The first turn that is measured."""
    return TURNS + 1 - scenario.requests // scenario.streams

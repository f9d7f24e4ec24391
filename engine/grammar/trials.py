"""Grammars are tried before the engine sees them: in a process that can be killed, once for each content.

The process starts with the first question and again after it has died. What it answered is kept, refusals too. Each
client has one question tried at a time, and so many in line; the clients take turns, so that whoever sends costly
schemas waits for them alone.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
import os
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

from engine.base import WORKS_FOR
from engine.errors import EngineDead, EngineOverloaded
from engine.grammar.tried import LENGTH, NUMBER, Backend, GrammarLimits, Question, Verdict

_log = logging.getLogger("farebox.engine")

# Forks at a time. They run at a low priority and mostly for milliseconds.
FORKS_MAX = 4
# In line, over all clients.
WAITING_MAX = 512
# How much of what was answered is kept.
KEPT_BYTES_MAX = 16 * 2**20
# A process that says nothing for this many times the seconds that a grammar may take isn't computing any more.
SILENCE = 20


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """What the process needs to make the very grammars that the engine will make."""

    backend: Backend
    tokenizer: str
    vocabulary: int
    end: int | None


class Trials:
    """The questions and answers of one engine. Used from one event loop."""

    def __init__(self, limits: GrammarLimits, tokenizer: Callable[[], Tokenizer]) -> None:
        self.limits = limits
        self._tokenizer = tokenizer
        self._kept: OrderedDict[bytes, Verdict] = OrderedDict()
        self._kept_bytes = 0
        self._asked: dict[bytes, asyncio.Future[Verdict]] = {}
        self._lines: OrderedDict[str, deque[tuple[bytes, Question]]] = OrderedDict()
        self._busy: set[str] = set()
        self._process: _Process | None = None
        self._starting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.tried = 0

    async def ask(self, question: Question) -> Verdict:
        """Raises EngineOverloaded when too many are in line, or the process was lost over it."""
        line = question.line()
        key = hashlib.blake2b(line, digest_size=20).digest()
        if (verdict := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            return verdict
        future = self._asked.get(key)
        if future is None:
            future = self._enqueue(key, question)
        # Whoever gives up waiting leaves it to the others, and to the next.
        return await asyncio.shield(future)

    def _enqueue(self, key: bytes, question: Question) -> "asyncio.Future[Verdict]":
        client = WORKS_FOR.get()
        line = self._lines.setdefault(client, deque())
        if len(line) >= self.limits.waiting or sum(map(len, self._lines.values())) >= WAITING_MAX:
            raise EngineOverloaded("Too many response formats and tools are being tried; try again in a moment.")
        line.append((key, question))
        future = self._asked[key] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        self._next()
        return future

    def _next(self) -> None:
        """Start what may start: the clients' first ones, in turn."""
        for client in list(self._lines):
            if len(self._busy) >= FORKS_MAX:
                return
            if client in self._busy:
                continue
            line = self._lines[client]
            key, question = line.popleft()
            self._lines.move_to_end(client)
            if not line:
                del self._lines[client]
            self._busy.add(client)
            task = asyncio.get_running_loop().create_task(self._try(client, key, question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _try(self, client: str, key: bytes, question: Question) -> None:
        future = self._asked[key]
        try:
            verdict = await self._answer(question)
            self._keep(key, verdict)
            future.set_result(verdict)
        except asyncio.CancelledError:
            future.set_exception(EngineDead("The engine has been stopped."))
            raise
        except Exception as error:
            _log.error("A grammar couldn't be tried: %s", type(error).__name__)
            future.set_exception(EngineOverloaded("The response format couldn't be tried; try again in a moment."))
        finally:
            del self._asked[key]
            self._busy.discard(client)
            self._next()

    async def _answer(self, question: Question) -> Verdict:
        async with self._starting:
            if self._process is None or self._process.dead:
                self._process = _Process(self.limits, await asyncio.to_thread(self._tokenizer))
            process = self._process
        self.tried += 1
        return await process.ask(question)

    def _keep(self, key: bytes, verdict: Verdict) -> None:
        self._kept[key] = verdict
        self._kept_bytes += verdict.size
        while self._kept_bytes > KEPT_BYTES_MAX:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.size

    async def close(self) -> None:
        """Ends the process; what is in line raises EngineDead. Idempotent."""
        for line in self._lines.values():
            for key, _ in line:
                self._asked.pop(key).set_exception(EngineDead("The engine has been stopped."))
        self._lines.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._process is not None:
            await self._process.close()


class _Process:
    """One trial process. It is started by the first question."""

    def __init__(self, limits: GrammarLimits, tokenizer: Tokenizer) -> None:
        self.dead = False
        self._limits = limits
        self._setup = json.dumps({"limits": asdict(limits), **asdict(tokenizer)}).encode()
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Verdict]] = {}
        self._starting: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._reader: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Verdict:
        """Raises ConnectionError when the process ends, TimeoutError when it hangs."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())
        try:
            process = await asyncio.shield(self._starting)
        except OSError:
            self.dead = True
            raise
        assert process.stdin is not None
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            process.stdin.write(_frame(NUMBER.pack(number) + question.line()))
            await process.stdin.drain()
            return await asyncio.wait_for(future, self._limits.seconds * SILENCE)
        except TimeoutError:
            process.kill()
            raise
        finally:
            del self._asked[number]

    async def _start(self) -> asyncio.subprocess.Process:
        # None of the gateway's secrets, for a process that computes what strangers send.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FAREBOX_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "engine.grammar.trial_process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment | {"OPENBLAS_NUM_THREADS": "1"},
        )
        assert process.stdin is not None
        process.stdin.write(_frame(self._setup))
        self._setup = b""
        self._reader = asyncio.get_running_loop().create_task(self._read(process))
        return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
                frame = await process.stdout.readexactly(length)
                future = self._asked.get(NUMBER.unpack(frame[: NUMBER.size])[0])
                if future is not None and not future.done():
                    future.set_result(Verdict.of(frame[NUMBER.size :]))
        self.dead = True
        await process.wait()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ConnectionError("the process that tries grammars has ended"))

    async def close(self) -> None:
        self.dead = True
        if self._starting is None:
            return
        with contextlib.suppress(OSError):  # it couldn't be started, or has ended
            (await self._starting).kill()
        if self._reader is not None:
            await self._reader


def _frame(content: bytes) -> bytes:
    return LENGTH.pack(len(content)) + content

"""Large requests wait in line, so that they neither hold up the event loop nor fill the memory.

| a body                                                        | is parsed and checked  | its prompt is made     |
|---------------------------------------------------------------|------------------------|------------------------|
| of a few kilobytes, or a long text with little structure      | in the event loop      | in the event loop      |
| of much text                                                  | in the event loop      | in line, in a thread   |
| of many values (objects, lists, names, texts)                 | in line, in a process  | in line, in a thread   |

The line lets one large request of each key in at a time, and a few of all keys: a key that sends many waits for itself.
"""

import asyncio
import logging
import pickle
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from gateway.errors import BodyTooLarge, Unavailable
from gateway.request.body_checker import LENGTH, Check, Checked

log = logging.getLogger("farebox.bodies")

SMALL_BYTES = 16 * 2**10  # whatever it holds, it is checked within a few milliseconds
TEXT_BYTES = 256 * 2**10  # from here on tokenizing takes tenths of a second
VALUES_INLINE = 8192  # checking one takes about 2 µs
VALUES_FEW = 1024  # converting what they make takes up to 20 µs each
STRIPPED_BYTES = 2**20  # looking behind the quotes of more takes more than two milliseconds
QUOTES_MAX = 2 * VALUES_INLINE
AT_ONCE = 2  # one is checked while the prompt of another is made
READ_BYTES = 2**20
CLOSE_SECONDS = 2.0
STUCK = 10  # times the CPU time that it may take: then it is stuck, or the machine is

P = ParamSpec("P")
R = TypeVar("R")


def is_large(raw: bytes) -> bool:
    """Whether it is worth a look at what it holds."""
    return len(raw) > SMALL_BYTES


def values_at_most(raw: bytes) -> int:
    """No fewer than there are values in the JSON, found fast: what is in texts may be counted as well.

    It isn't where that would make a body of long texts one of many values: a conversation of 100,000 tokens has tens of
    thousands of commas and brackets in its texts, and a few hundred messages.
    """
    values = _marks(raw)
    if values <= VALUES_INLINE or len(raw) > STRIPPED_BYTES or raw.count(b'"') - raw.count(b'\\"') > QUOTES_MAX:
        return values
    # A backslash stands within a text and hides what follows it, so that each quote that is left begins or ends one.
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    return min(values, _marks(b"".join(plain.split(b'"')[::2])))


def _marks(raw: bytes) -> int:
    return 1 + raw.count(b",") + raw.count(b"[") + raw.count(b"{")


class Turn:
    """One request's place in line: taken if its body is large, given back when its prompt is made."""

    __slots__ = ("_key_id", "_line", "_lock", "threaded")

    def __init__(self, line: "LargeBodies", key_id: int) -> None:
        self._line = line
        self._key_id = key_id
        self._lock: asyncio.Lock | None = None
        self.threaded = False

    async def begin(self, raw: bytes) -> int:
        """Get in line if the body holds much. Returns at least how many values it holds.

        Raises Unavailable where too many wait.
        """
        values = values_at_most(raw)
        self.threaded = values > VALUES_FEW
        if values > VALUES_INLINE or len(raw) > TEXT_BYTES:
            self._lock = await self._line.enter(self._key_id)
        return values

    async def run(self, make: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What makes a prompt of a body: in a thread, unless the body is small."""
        return await asyncio.to_thread(make, *args, **kwargs) if self.threaded else make(*args, **kwargs)

    def done(self) -> None:
        if self._lock is not None:
            self._line.leave(self._lock)
            self._lock = None


class LargeBodies:
    """The line, and the process that checks what has many values; it starts with the first of them, or by `warm_up`."""

    def __init__(self, *, waiting_max: int, seconds_max: float, memory_bytes_max: int) -> None:
        self._waiting_max = waiting_max
        self._waiting = 0
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._of_keys: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._checker = Checker(seconds_max, memory_bytes_max)
        self.checks = 0  # bodies that went to the process

    def turn(self, key_id: int) -> Turn:
        return Turn(self, key_id)

    async def enter(self, key_id: int) -> asyncio.Lock:
        if self._waiting >= self._waiting_max:
            raise Unavailable(
                f"{self._waiting_max} large requests are waiting, as many as are allowed. Try again in a moment.",
                code="too_many_large_requests",
                retry_after_seconds=1,
            )
        self._waiting += 1
        try:
            lock = self._of_keys.setdefault(key_id, asyncio.Lock())
            await lock.acquire()
            try:
                await self._slots.acquire()
            except BaseException:
                lock.release()
                raise
        except BaseException:
            self._waiting -= 1
            raise
        return lock

    def leave(self, lock: asyncio.Lock) -> None:
        self._waiting -= 1
        self._slots.release()
        lock.release()

    @property
    def waiting(self) -> int:
        """How many there are, those included that are being worked on."""
        return self._waiting

    async def check(self, job: Check) -> Checked:
        """Raises GatewayError where the process fails on it."""
        self.checks += 1
        return await self._checker.check(job)

    async def warm_up(self) -> None:
        await self._checker.start()

    async def close(self) -> None:
        await self._checker.close()


class Checker:
    """`gateway.request.body_checker` in its process. One that takes too long, or too much memory, is replaced."""

    def __init__(self, seconds_max: float, memory_bytes_max: int) -> None:
        self._seconds_max = seconds_max
        self._memory_bytes_max = memory_bytes_max
        self._process: Process | None = None
        self._alone = asyncio.Lock()
        self._asking: set[asyncio.Task[bytes]] = set()

    async def check(self, job: Check) -> Checked:
        # Not cancelled with the request: the process would have to be replaced for each client that goes away.
        task = asyncio.create_task(self._ask(pickle.dumps(job, pickle.HIGHEST_PROTOCOL)))
        self._asking.add(task)
        task.add_done_callback(self._asked)
        answer = await asyncio.shield(task)
        checked: Checked = await asyncio.to_thread(pickle.loads, answer)
        return checked

    async def start(self) -> None:
        async with self._alone:
            await self._running()

    async def close(self) -> None:
        for task in self._asking:
            task.cancel()
        async with self._alone:
            if self._process is not None:
                await self._end(self._process)

    def _asked(self, task: "asyncio.Task[bytes]") -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # of a body whose client is gone nobody else asks

    async def _ask(self, question: bytes) -> bytes:
        async with self._alone:
            process = await self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                async with asyncio.timeout(STUCK * self._seconds_max):
                    process.stdin.write(LENGTH.pack(len(question)))
                    process.stdin.write(question)
                    await process.stdin.drain()
                    head = await process.stdout.readexactly(LENGTH.size)
                    return await process.stdout.readexactly(*LENGTH.unpack(head))
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                ended = await self._end(process)
                if ended == -signal.SIGPROF or isinstance(error, TimeoutError):
                    what = f"{self._seconds_max:g} s of CPU time"
                else:
                    what = f"{self._memory_bytes_max} bytes of memory"
                raise BodyTooLarge(f"The body takes more than {what} to check. Send less.") from None
            except BaseException:
                await self._end(process)
                raise

    async def _running(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            code = f"from gateway.request.body_checker import main; main({self._seconds_max}, {self._memory_bytes_max})"
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, stdin=PIPE, stdout=PIPE, limit=READ_BYTES
            )
        return self._process

    async def _end(self, process: Process) -> int:
        """How it ended: by the end of its input, by itself, or by force."""
        self._process = None
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()

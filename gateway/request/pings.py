"""A stream is never silent for long: proxies and clients take one that is for dead.

After `FAREBOX_STREAM_PING_SECONDS` without a byte a ping goes out, before the first token as well as in a gap. There is
one timer for a stream and none for a token: a token only leaves behind when it came.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic


class Pings:
    """From now on until `stop`, `ping` is awaited whenever nothing was written for so many seconds.

    `last` is when something was written, as `time.monotonic` has it: the writer sets it.
    """

    __slots__ = ("_loop", "_ping", "_running", "_seconds", "_timer", "last")

    def __init__(self, seconds: float, ping: Callable[[], Awaitable[None]]) -> None:
        self.last = monotonic()
        self._seconds = seconds
        self._ping = ping
        self._loop = asyncio.get_running_loop()
        self._running: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        left = self.last + self._seconds - monotonic()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._running = self._loop.create_task(self._run())

    async def _run(self) -> None:
        await self._ping()
        self.last = monotonic()
        self._running = None
        self._timer = self._loop.call_later(self._seconds, self._look)

    async def settled(self) -> None:
        """Wait for a ping that is being sent."""
        if self._running is not None:
            await asyncio.wait({self._running})

    def stop(self) -> None:
        self._timer.cancel()
        if self._running is not None:
            self._running.cancel()

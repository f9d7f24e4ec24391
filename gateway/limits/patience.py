"""A limit of time that doesn't count the time in which the event loop itself was held up."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

TURNS = 5


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """What `awaitable` gives. Raises TimeoutError where it takes longer while the loop turns.

    The time is counted in a few turns of the loop: one that comes late counts for no more than it should have taken. So
    an answer that was there in time is always read, and in a loop that is always late the limit is a few turns long.
    """
    async with asyncio.timeout(None) as limit:
        patience = _Patience(seconds, limit)
        try:
            return await awaitable
        finally:
            patience.end()


class _Patience:
    __slots__ = ("_left", "_limit", "_loop", "_step", "_timer")

    def __init__(self, seconds: float, limit: asyncio.Timeout) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._step = seconds / TURNS
        self._left = TURNS
        self._timer = self._loop.call_later(self._step, self._turn)

    def _turn(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = self._loop.call_later(self._step, self._turn)
        else:
            # Not at once: what came in this turn of the loop is looked at first.
            self._limit.reschedule(self._loop.time())

    def end(self) -> None:
        self._timer.cancel()

"""How many requests of batches an engine has room for, as it is now.

Batches fill what interactive requests leave, and leave a part of it free for those that come next: where every seat is
taken, the engine takes no place from what runs, whatever its tier. How much of the rest is used is found out, as TCP
does: one more for each request that ended well while all places were in use, and a third less whenever requests wait in
the engine, or its memory gets short.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from engine.base import Engine, EngineState

FREE_SHARE: Final = 4  # one seat in so many is left for those that come next
CACHE_USED_MAX: Final = 0.8  # of the engine's memory for tokens
BACK_OFF: Final = 2 / 3
BACK_OFF_SECONDS: Final = 0.25  # until an earlier step back has had its effect
LOOK_SECONDS: Final = 0.02
FIRST: Final = 2.0


class Room:
    """One engine's. Who asks first is first, so batches take turns. `behind` says whether the gateway keeps up."""

    def __init__(self, engine: Engine, most: int | None, behind: Callable[[], bool]) -> None:
        self._engine = engine
        self._most = most
        self._behind = behind
        self._limit = FIRST
        self._backed_off = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._looking: asyncio.Task[None] | None = None
        self.taken = 0

    async def take(self) -> None:
        """Wait for a place; `give` it back."""
        if not self._waiting and self._fits():
            self.taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="batch room")
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(well=False)
            raise

    def give(self, *, well: bool) -> None:
        """Give a place back; `well` says whether its request ended as it should."""
        full = self.taken >= int(self._limit)
        self.taken -= 1
        if well and full and not self._short():
            self._limit = min(self._limit + 1, float(self._engine.load.seats))
        self._admit()

    @property
    def limit(self) -> int:
        """How many it may be at this moment."""
        load = self._engine.load
        others = max(0, load.requests - self.taken)
        free = load.seats - others - -(-load.seats // FREE_SHARE)
        most = load.seats if self._most is None else self._most
        return max(0 if others else 1, min(int(self._limit), free, most))

    def _fits(self) -> bool:
        ready = self._engine.state is EngineState.READY and not self._behind()
        if ready and self._short() and monotonic() - self._backed_off > BACK_OFF_SECONDS:
            self._backed_off = monotonic()
            self._limit = max(1.0, self._limit * BACK_OFF)
        return ready and self.taken < self.limit and (not self._short() or self.taken == 0)

    def _short(self) -> bool:
        load = self._engine.load
        return load.waiting > 0 or load.cache_used > CACHE_USED_MAX

    def _admit(self) -> None:
        while self._waiting and (self._waiting[0].done() or self._fits()):
            turn = self._waiting.popleft()
            if not turn.done():
                self.taken += 1
                turn.set_result(None)

    async def _look(self) -> None:
        """Room comes without a word, too."""
        while self._waiting:
            await asyncio.sleep(LOOK_SECONDS)
            self._admit()

"""How long others wait for a turn of the event loop, in work and not by the clock, so that a busy machine changes
nothing: the CPU time that this process used between two turns, in the loop itself or with Python's lock in a thread."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress


class LoopMeter:
    """`worst` is in seconds of CPU time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.worst = 0.0
        self._clock = clock

    async def turn(self) -> None:
        while True:
            before = self._clock()
            await asyncio.sleep(0.001)
            self.worst = max(self.worst, self._clock() - before)


@asynccontextmanager
async def loop_meter(clock: Callable[[], float] = time.process_time) -> AsyncIterator[LoopMeter]:
    """Measures the running loop. What was made before is kept from the garbage collector, as in a server.

    With `time.thread_time` it is the loop's own work alone, where threads work without Python's lock meanwhile.
    """
    gc.collect()
    gc.freeze()
    meter = LoopMeter(clock)
    task = asyncio.create_task(meter.turn())
    await asyncio.sleep(0)
    try:
        yield meter
        await asyncio.sleep(0.01)  # for the turn that may have come late to the very end
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        gc.unfreeze()

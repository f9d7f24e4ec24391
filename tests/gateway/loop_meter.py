"""How long others wait for a turn of the event loop, in work and not by the clock, so that a busy machine changes
nothing: the CPU time that this process used between two turns, in the loop itself or with Python's lock in a thread."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class LoopMeter:
    """`worst` is in seconds of CPU time, since `reset`."""

    def __init__(self) -> None:
        self.worst = 0.0

    def reset(self) -> None:
        self.worst = 0.0

    async def turn(self) -> None:
        while True:
            before = time.process_time()
            await asyncio.sleep(0.001)
            self.worst = max(self.worst, time.process_time() - before)


@asynccontextmanager
async def loop_meter() -> AsyncIterator[LoopMeter]:
    """Measures the running loop. What was made before is kept from the garbage collector, as in a server."""
    gc.collect()
    gc.freeze()
    meter = LoopMeter()
    task = asyncio.create_task(meter.turn())
    try:
        yield meter
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        gc.unfreeze()

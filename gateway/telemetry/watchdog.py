"""How late the event loop is, which everybody shares: a metric, a reading for back-pressure, and who held it up.

A timer in the loop says how late its own turn came. A thread looks at what runs while a turn is overdue: afterwards
nobody could tell any more.
"""

import asyncio
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram

log = logging.getLogger("farebox.loop")

# Between two looks. A delay that is shorter may fall between them; one that is longer is seen less this much at worst.
PERIOD_SECONDS = 0.1
RECENT_SECONDS = 1.0  # of the average that `recent_seconds` is
WEIGHT = 1 - math.exp(-PERIOD_SECONDS / RECENT_SECONDS)
SUSPECT_SECONDS = 0.05  # overdue by this much, it is worth a look at what runs
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1, 2.5, 5, 10, 30)

_ROOT = Path(__file__).resolve().parents[2]


class LoopWatch:
    """Measures the delay of the loop that it is opened in.

    `recent_seconds` is how late the loop was lately: an average over about a second, in which one long stop counts by
    how long everybody waited for it, and passes. `last_seconds` is the last reading alone.
    """

    def __init__(self, observe: Callable[[float], None] = lambda seconds: None, *, log_seconds: float = 0.2) -> None:
        self.recent_seconds = 0.0
        self.last_seconds = 0.0
        self.tells = False  # on the log: before the first request nobody waits
        self._observe = observe
        self._log_seconds = log_seconds
        self._due = 0.0
        self._suspect: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._loop_thread = 0

    @classmethod
    def open(cls, observe: Callable[[float], None] = lambda seconds: None, *, log_seconds: float = 0.2) -> "LoopWatch":
        """Watch the running loop, until `close`."""
        watch = cls(observe, log_seconds=log_seconds)
        watch._loop = asyncio.get_running_loop()
        watch._loop_thread = threading.get_ident()
        watch._wait()
        threading.Thread(target=watch._keep_looking, name="loop watch", daemon=True).start()
        return watch

    async def close(self) -> None:
        self._closed.set()
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._due = time.monotonic() + PERIOD_SECONDS
        self._timer = self._loop.call_later(PERIOD_SECONDS, self._turn)

    def tell(self) -> None:
        """Say on the log, from now on, what holds the loop up. What held it up while models were loaded is past."""
        if self._timer is not None:
            self._timer.cancel()
        self._wait()
        self.tells = True

    def _turn(self) -> None:
        delay = max(0.0, time.monotonic() - self._due)
        self.note(delay)
        if self.tells and delay >= self._log_seconds:
            log.warning("the event loop was held up for %.2f s, by %s", delay, self._suspect or "what is unknown")
        self._suspect = None
        self._wait()

    def note(self, delay: float) -> None:
        """Count it, and the looks that fell out meanwhile as what they would have seen."""
        self.last_seconds = delay
        missed = int(delay / PERIOD_SECONDS)
        for seen in (delay - PERIOD_SECONDS * turns for turns in range(missed, -1, -1)):
            self._observe(seen)
            self.recent_seconds += WEIGHT * (seen - self.recent_seconds)

    def _keep_looking(self) -> None:
        while not self._closed.wait(max(self._due + SUSPECT_SECONDS - time.monotonic(), SUSPECT_SECONDS)):
            if self._suspect is None and time.monotonic() - self._due > SUSPECT_SECONDS:
                self._suspect = self._running()

    def _running(self) -> str:
        """The task in whose step the loop is, by its name, and our line that it is at. Called from the thread."""
        task = asyncio.current_task(self._loop)
        name = task.get_name() if task is not None else "a callback"
        frame = sys._current_frames().get(self._loop_thread)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if _ROOT in path.parents and "site-packages" not in path.parts:
                return f"{name} ({path.relative_to(_ROOT)}:{frame.f_lineno}, {frame.f_code.co_name})"
            frame = frame.f_back
        return name


def delay_histogram(registry: CollectorRegistry) -> Histogram:
    """`farebox_event_loop_delay_seconds`: several processes add up, as in all histograms."""
    return Histogram(
        "farebox_event_loop_delay_seconds",
        "How late the event loop was for a timer, looked at ten times a second.",
        buckets=BUCKETS,
        registry=registry,
    )

"""An engine for several front-end processes, as vLLM's own server has with `--api-server-count`.

The parent starts vLLM's engine processes and gives each front end a `Seat`; a front end is an `EmbeddedEngine` with
that seat. The parent sees an engine process die and must say so; the front ends can't see it.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine import environment
from engine.base import EngineSpec
from engine.errors import EngineStartError
from engine.seat import Seat
from engine.starting import STOP_SECONDS, in_daemon_thread, prepare, reason

if TYPE_CHECKING:
    from engine.processes import EngineProcesses


class SharedEngine:
    """The processes of one engine. vLLM is imported by `launch`, not by this module."""

    def __init__(self, spec: EngineSpec, front_ends: int) -> None:
        self.spec = spec
        self._front_ends = front_ends
        self._logs: environment.EngineLogs | None = None
        self._processes: EngineProcesses | None = None

    async def launch(self) -> list[Seat]:
        """Start the processes, and return while they load the weights. Raises EngineStartError."""
        prepare(self.spec)
        self._logs = environment.EngineLogs()
        config_path = self._logs.config_path

        def make() -> "EngineProcesses":
            from engine.processes import EngineProcesses

            return EngineProcesses(self.spec, self._front_ends, config_path)

        try:
            self._processes = await in_daemon_thread(make, lambda processes: processes.stop(0))
        except Exception as error:
            raise self._not_started(error) from error
        return self._processes.seats

    async def loaded(self, died: Callable[[], None]) -> None:
        """Return when the weights are loaded. `died` is called in the event loop when the engine ends after that.

        Raises EngineStartError.
        """
        assert self._processes is not None
        try:
            await in_daemon_thread(self._processes.wait_until_loaded, lambda _: None)
            if self._logs is not None:
                self._logs.requests_come()
        except Exception as error:
            raise self._not_started(error) from error
        loop = asyncio.get_running_loop()

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(died)

        threading.Thread(target=self._processes.watch, args=(tell,), name="engine-watch", daemon=True).start()

    async def stop(self) -> None:
        """End the processes, within about STOP_SECONDS."""
        if self._processes is not None:
            await asyncio.to_thread(self._processes.stop, STOP_SECONDS)
        if self._logs is not None:
            self._logs.close()

    def _not_started(self, error: Exception) -> EngineStartError:
        return EngineStartError(reason(self.spec, error, self._logs))

"""vLLM's engine processes, started for several front ends: what `vllm serve --api-server-count` does in its parent."""

import multiprocessing
from collections.abc import Callable
from contextlib import ExitStack

from vllm.platforms import current_platform
from vllm.v1.engine.admission_control import SharedAdmissionStats
from vllm.v1.engine.utils import bind_engine_zmq_listeners, launch_core_engines

from engine.args import engine_args, statistics
from engine.base import EngineSpec
from engine.seat import Seat
from engine.vllm_internals.core import Statistics, engine_config, take_seat
from engine.vllm_internals.lifeline import executor_class


class EngineProcesses:
    """Started by the constructor; `wait_until_loaded` comes next. Raises EngineStartError and whatever vLLM raises."""

    def __init__(self, spec: EngineSpec, front_ends: int, log_config_path: str | None) -> None:
        args = engine_args(spec, log_config_path)
        if not current_platform.is_cpu():  # there vLLM takes the number for a data-parallel size, and splits the cores
            take_seat(args, front_ends, -1)
        config = engine_config(args)
        self._listeners = bind_engine_zmq_listeners(config, front_ends)
        self._launching = ExitStack()
        keeps_statistics = statistics(spec) is not Statistics.NONE
        self._launch = self._launching.enter_context(
            launch_core_engines(config, executor_class(config), keeps_statistics, self._listeners.addresses)
        )
        # How many requests each front end has running, so that together they refuse what is beyond vLLM's queue.
        counters = multiprocessing.get_context("spawn").RawArray("q", SharedAdmissionStats.num_counters(front_ends))
        self.seats = [self._seat(index, front_ends, counters) for index in range(front_ends)]

    def _seat(self, index: int, count: int, counters: object) -> Seat:
        inputs, outputs = self._listeners.inputs[index], self._listeners.outputs[index]
        addresses = {
            "input_address": inputs.address,
            "output_address": outputs.address,
            "input_listener": inputs.socket,
            "output_listener": outputs.socket,
            "mp_admission_counters": counters,
        }
        if self._launch.coordinator is not None:
            addresses["stats_update_address"] = self._launch.coordinator.get_stats_publish_address()
        return Seat(index, count, addresses)

    def wait_until_loaded(self) -> None:
        """Blocks. Raises RuntimeError when a process ends meanwhile."""
        self._launching.close()

    def watch(self, died: Callable[[], None]) -> None:
        """Blocks until an engine process ends, ends the others, and calls `died`, unless `stop` came first."""
        manager = self._launch.engine_manager
        manager.monitor_engine_liveness()
        if manager.failed_proc_name is not None:
            died()

    def stop(self, seconds: float) -> None:
        """Ends the processes; blocks for at most about `seconds`."""
        self._launch.engine_manager.shutdown(timeout=seconds)
        if self._launch.coordinator is not None:
            self._launch.coordinator.shutdown(timeout=seconds)
        for listener in (*self._listeners.inputs, *self._listeners.outputs):
            listener.cleanup()

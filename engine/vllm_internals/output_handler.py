"""The task that takes what the engine made: vLLM's `output_handler`, for a front end that can fall behind.

vLLM's goes on as long as anything is waiting, however long that takes: a front end that is slower than its engine then
does nothing else, and what waits has no end. Here other work gets its turn, tokens that wait leave together, and an
engine that is too far ahead is stopped until they are gone.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from vllm import envs
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.engine.core_client import AsyncMPClient
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.stats import IterationStats

from engine.vllm_internals.outputs import StepProcessor

TURN_SECONDS = 0.01  # what may be taken in before others get a turn, not counting what is written of it
AHEAD_SECONDS_MAX = 1.0  # how old a token may be when it is taken, before the engine is stopped
RECENT_SECONDS = 1.0  # how long the age of what was taken last says how late the front end is

Record = Callable[[EngineCoreOutputs, IterationStats | None], None]

_log = logging.getLogger("farebox.engine")


class OutputHandler:
    """Passes the engine's outputs to `processor` until the engine ends.

    `record` takes their statistics, of each token where it `counts`. `ages` says that the engine's clock is this
    machine's; `stops_engine`, that it has no other front ends, which would have to wait for this one.
    """

    def __init__(
        self,
        client: AsyncMPClient,
        processor: StepProcessor,
        record: Record,
        *,
        counts: bool,
        ages: bool,
        stops_engine: bool,
    ) -> None:
        self._client = client
        self._processor = processor
        self._record = record
        self._counts = counts
        self._ages = ages
        self._stops_engine = stops_engine
        self._turn_ends = 0.0
        self._late = 0.0
        self._seen_at = 0.0
        self._drained = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None

    @property
    def lag_seconds(self) -> float:
        """The age of the tokens that were taken last, if that wasn't long ago."""
        return self._late if time.monotonic() - self._seen_at < RECENT_SECONDS else 0.0

    async def run(self) -> None:
        try:
            while True:
                rested = self._client.outputs_queue.empty()
                outputs = await self._client.get_output_async()
                if rested:
                    self._turn_ends = time.monotonic() + TURN_SECONDS
                if self._ages:
                    self._note(time.monotonic() - outputs.timestamp)
                await self._take(outputs)
        except Exception as error:
            _log.exception("What the engine makes can't be taken any more.")
            self._processor.propagate_error(error)
        finally:
            if self._stopping is not None:
                self._stopping.cancel()

    async def _take(self, outputs: EngineCoreOutputs) -> None:
        """One message of the engine: as a rule, one step of it."""
        client, processor = self._client, self._processor
        statistics = IterationStats() if self._counts and outputs.outputs else None
        if not client.outputs_queue.empty():
            processor.gather()
        size = envs.VLLM_V1_OUTPUT_PROC_CHUNK_SIZE
        for start in range(0, len(outputs.outputs), size):
            processed = processor.process_outputs(
                outputs.outputs[start : start + size], outputs.timestamp, statistics, outputs.weight_version
            )
            if start + size < len(outputs.outputs) or time.monotonic() > self._turn_ends:
                await self._give_way()
            if processed.reqs_to_abort:
                await client.abort_requests_async(processed.reqs_to_abort)
        if client.outputs_queue.empty():
            processor.hand_out()
            self._drained.set()
        processor.update_scheduler_stats(outputs.scheduler_stats)
        self._record(outputs, statistics)

    async def _give_way(self) -> None:
        self._processor.hand_out()
        await asyncio.sleep(0)
        self._turn_ends = time.monotonic() + TURN_SECONDS

    def _note(self, age: float) -> None:
        self._late, self._seen_at = age, time.monotonic()
        if age > AHEAD_SECONDS_MAX and self._stops_engine and self._stopping is None:
            self._stopping = asyncio.create_task(self._stop_engine(), name="engine back-pressure")

    async def _stop_engine(self) -> None:
        """Until everything that it has made is taken. Requests stay where they are."""
        with contextlib.suppress(EngineDeadError):
            await self._client.pause_scheduler_async(mode="keep", clear_cache=False)
            self._drained.clear()
            if not self._client.outputs_queue.empty():
                await self._drained.wait()
            await self._client.resume_scheduler_async()
        self._stopping = None

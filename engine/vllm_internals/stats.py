"""vLLM's own Prometheus metrics without their price per token.

vLLM's full statistics cost about 25 microseconds per token: an observation of the inter-token latency and some sixty
increments per engine step. Here the scheduler's figures (running, waiting, KV cache, prefix cache) and what is known
once per request (time to first token, latencies, token counts, finish reasons) are collected, and written to the
metrics at most five times a second. `vllm:inter_token_latency_seconds` and `vllm:iteration_tokens_total`, which are per
token and per step, stay empty: the gateway measures the first itself.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from vllm.config import VllmConfig
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.output_processor import RequestState
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.metrics.stats import (
    IterationStats,
    LoRARequestStates,
    MultiModalCacheStats,
    PrefixCacheStats,
    SchedulerStats,
)

FLUSH_SECONDS = 0.2

_metrics: dict[str, MetricWrapperBase] = {}


def _shared(kind: Callable[..., MetricWrapperBase]) -> object:
    """A constructor that gives the same metric again for the same name.

    vLLM unregisters its metrics and makes new ones for each engine, so that in a process with two engines the first
    one's figures would vanish. They differ in the label `model_name`, so they can share the metrics.
    """

    def make(name: str, **options: object) -> MetricWrapperBase:
        metric = _metrics.get(name)
        if metric is None:
            metric = _metrics[name] = kind(name, **options)
        else:
            with contextlib.suppress(ValueError):  # nobody has unregistered it
                REGISTRY.register(metric)
        return metric

    return staticmethod(make)


class EngineMetrics(PrometheusStatLogger):
    """vLLM's metrics, all of them, in metrics that the engines of one process share."""

    _gauge_cls = _shared(Gauge)
    _counter_cls = _shared(Counter)
    _histogram_cls = _shared(Histogram)

    waiting: dict[int, int]  # the output processor's, both
    cache_used: dict[int, float]

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        self.note_waiting(scheduler_stats, engine_idx)
        super().record(scheduler_stats, iteration_stats, mm_cache_stats, engine_idx)

    def note_waiting(self, stats: SchedulerStats | None, engine_idx: int) -> None:
        """For `Core.load`."""
        if stats is not None:
            self.cache_used[engine_idx] = stats.kv_cache_usage
            self.waiting[engine_idx] = stats.num_waiting_reqs + stats.num_skipped_waiting_reqs


class _Unused:
    """In place of a histogram that would get sums over many steps."""

    def observe(self, value: float) -> None:
        return


class ServingStats(EngineMetrics):
    """Collects over many engine steps, then lets vLLM's logger write the sums."""

    def __init__(self, vllm_config: VllmConfig, engine_indexes: list[int] | None = None) -> None:
        super().__init__(vllm_config, engine_indexes)
        self.histogram_iteration_tokens = dict.fromkeys(self.engine_indexes, _Unused())
        self._iteration = IterationStats()
        self._scheduler: dict[int, SchedulerStats] = {}
        self._timer: asyncio.TimerHandle | None = None

    def step_begins(self) -> IterationStats:
        self._iteration.iteration_timestamp = time.time()
        return self._iteration

    def observe(self, output: EngineCoreOutput, timestamp: float, state: RequestState, lora: LoRARequestStates) -> None:
        """A request's first output, or one with events (queued, scheduled, preempted)."""
        first = state.is_prefilling
        self._iteration.update_from_output(output, timestamp, first, state.stats, lora, state.lora_name)
        self._iteration.inter_token_latencies_iter.clear()

    def count(self, tokens: int) -> None:
        """Tokens of outputs that were not observed."""
        self._iteration.num_generation_tokens += tokens

    def settle(self, state: RequestState, timestamp: float) -> None:
        """Gives a request's statistics what was not kept per token, now that it has ended."""
        state.stats.num_generation_tokens = state.detokenizer.num_output_tokens()
        state.stats.last_token_ts = timestamp

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        if scheduler_stats is not None:
            held = self._scheduler.get(engine_idx)
            if held is not None and not _add(held, scheduler_stats):
                super().record(held, None, engine_idx=engine_idx)
            self._scheduler[engine_idx] = scheduler_stats
            self.note_waiting(scheduler_stats, engine_idx)
        if mm_cache_stats is not None:
            super().record(None, None, mm_cache_stats, engine_idx)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Writes what was collected. The iteration's sums go to the first engine of a data-parallel group."""
        self._timer = None
        iteration, self._iteration = self._iteration, IterationStats()
        held, self._scheduler = self._scheduler, {}
        for engine_idx, scheduler_stats in held.items():
            super().record(scheduler_stats, None, engine_idx=engine_idx)
        super().record(None, iteration, engine_idx=self.engine_indexes[0])


def _add(held: SchedulerStats, new: SchedulerStats) -> bool:
    """Adds the counters of `held` to `new`, whose gauges replace it. False if `held` has parts that can't be added."""
    if (
        held.spec_decoding_stats is not None
        or held.connector_prefix_cache_stats is not None
        or held.kv_connector_stats is not None
        or held.ec_connector_stats is not None
        or held.kv_cache_eviction_events
        or held.perf_stats is not None
    ):
        return False
    total, more = new.prefix_cache_stats, held.prefix_cache_stats
    new.prefix_cache_stats = PrefixCacheStats(
        reset=total.reset or more.reset,
        requests=total.requests + more.requests,
        queries=total.queries + more.queries,
        hits=total.hits + more.hits,
        preempted_requests=total.preempted_requests + more.preempted_requests,
        preempted_queries=total.preempted_queries + more.preempted_queries,
        preempted_hits=total.preempted_hits + more.preempted_hits,
    )
    return True

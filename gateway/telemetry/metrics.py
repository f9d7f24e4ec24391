"""What Prometheus sees. Labels have few values: models, routes and outcomes, never keys or a client's words."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Final, Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from gateway.telemetry.gathered import add_observations
from gateway.telemetry.receipt import Receipt
from gateway.telemetry.watchdog import delay_histogram
from pricing.money import usd_number
from pricing.reservation import Outcome
from pricing.tier import Tier

# Seconds. From a cache hit on a small model to a long prompt in a full queue.
FIRST_TOKEN_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 40, 80)
INTER_TOKEN_BUCKETS: Final = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2.5)
REQUEST_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
COMMIT_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


TOKEN_KINDS: Final = ("prompt", "cached", "completion")
Readings = Mapping[tuple[str, ...], float]
# What the readings of several processes become together.
Across = Literal["sum", "max", "min"]

# The folder in which several processes put their metrics together. prometheus_client reads it when it is imported.
TOGETHER_IN: Final = "PROMETHEUS_MULTIPROC_DIR"
READ_SECONDS: Final = 1.0  # how often a process puts its readings there


class Metrics:
    """The gateway's metrics, in a registry of their own. `page` is what all processes of this gateway counted.

    `together`: there are several, and TOGETHER_IN was set before prometheus_client was imported.
    """

    def __init__(self, version: str, together: bool = False) -> None:
        self.registry = registry = CollectorRegistry()
        self._together = together
        self._readings: list[tuple[Gauge, Callable[[], Readings]]] = []
        self._reading: asyncio.Task[None] | None = None
        self.requests = Counter(
            "farebox_requests",
            "Requests by model, route and HTTP status.",
            ["model", "route", "status"],
            registry=registry,
        )
        self.tokens = Counter(
            "farebox_tokens",
            "Tokens charged, by kind: prompt (not cached), cached, completion.",
            ["model", "kind", "tier"],
            registry=registry,
        )
        self.cost = Counter("farebox_cost_usd", "US dollars charged.", ["model", "tier"], registry=registry)
        self.first_token = Histogram(
            "farebox_time_to_first_token_seconds",
            "From the request's arrival to its first token.",
            ["model", "tier"],
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self.inter_token = Histogram(
            "farebox_inter_token_seconds",
            "Between two deltas of a request.",
            ["model"],
            buckets=INTER_TOKEN_BUCKETS,
            registry=registry,
        )
        self.request_seconds = Histogram(
            "farebox_request_seconds",
            "From a generating request's arrival to its settlement.",
            ["model", "outcome"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        build = Gauge("farebox_build_info", "Always 1.", ["version"], registry=registry, multiprocess_mode="max")
        build.labels(version).set(1)
        self._count_events(registry)

    def _count_events(self, registry: CollectorRegistry) -> None:
        self.rejections = Counter(
            "farebox_rejections", "Requests refused, by the error's code.", ["reason"], registry=registry
        )
        self.commit_seconds = Histogram(
            "farebox_ledger_commit_seconds",
            "Duration of the ledger's group commits.",
            buckets=COMMIT_BUCKETS,
            registry=registry,
        )
        self.loop_delay = delay_histogram(registry)
        self.disconnects = Counter(
            "farebox_disconnects",
            "Requests whose client went away before the end.",
            ["model"],
            registry=registry,
        )
        self.webhooks = Counter(
            "farebox_webhooks",
            "Calls of clients' webhooks, by outcome: delivered, retried, given_up.",
            ["outcome"],
            registry=registry,
        )
        # `labels` checks, converts and locks each time; a request asks for the same eight series as the one before.
        self.of_model = cache(partial(ModelMetrics, self))
        self.finished = cache(self.request_seconds.labels)
        self.answered = cache(self.requests.labels)

    def gauge(
        self, name: str, text: str, labels: Sequence[str], read: Callable[[], Readings], across: Across = "sum"
    ) -> None:
        """A gauge that is read at each scrape: its values by the values of its labels, in their order.

        Where several processes are scraped as one, each is read once a second.
        """
        if not self._together:
            self.registry.register(_Reading(name, text, labels, read))
            return
        self._readings.append((Gauge(name, text, labels, registry=self.registry, multiprocess_mode=across), read))
        if self._reading is None:
            self._reading = asyncio.create_task(self._keep_reading(), name="metrics")

    def page(self) -> bytes:
        """What a scrape gets: the gateway's metrics and, where vLLM runs in this process, vLLM's own (`vllm:*`)."""
        if not self._together:
            return generate_latest(self.registry) + generate_latest(REGISTRY)
        self._read()
        everything = CollectorRegistry()
        MultiProcessCollector(everything)  # type: ignore[no-untyped-call]
        return generate_latest(everything)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(READ_SECONDS)
            self._read()

    def _read(self) -> None:
        for gauge, read in self._readings:
            for values, reading in read().items():
                (gauge.labels(*values) if values else gauge).set(reading)

    def start_at_zero(self, models: Mapping[str, Iterable[Tier]], reasons: Iterable[str]) -> None:
        """Make the series that should be seen before their first event: a rate can't see the step from nothing to 1."""
        for model, tiers in models.items():
            self.disconnects.labels(model)
            for tier in tiers:
                self.cost.labels(model, tier)
                for kind in TOKEN_KINDS:
                    self.tokens.labels(model, kind, tier)
        for reason in reasons:
            self.rejections.labels(reason)

    def stream_timer(self, model: str, tier: Tier, arrived: float) -> "StreamTimer":
        return StreamTimer(self, model, tier, arrived)

    def commit(self, nanoseconds: int, operations: int) -> None:
        self.commit_seconds.observe(nanoseconds / 1e9)


class ModelMetrics:
    """The series that every request of one model and tier writes to."""

    __slots__ = ("cost", "first_token", "inter_token", "tokens")

    def __init__(self, metrics: Metrics, model: str, tier: Tier) -> None:
        self.first_token = metrics.first_token.labels(model, tier)
        self.inter_token = metrics.inter_token.labels(model)
        self.cost = metrics.cost.labels(model, tier)
        self.tokens = [metrics.tokens.labels(model, kind, tier) for kind in TOKEN_KINDS]


class StreamTimer:
    """The times and counts of one request. A token costs one clock read and one bisection, and no lock:
    what it gathers goes to the shared histograms when the request ends."""

    __slots__ = ("_arrived", "_gaps", "_gaps_sum", "_last", "_metrics", "_model", "_tier", "first_token_seconds")

    def __init__(self, metrics: Metrics, model: str, tier: Tier, arrived: float) -> None:
        self._metrics = metrics
        self._model = model
        self._tier = tier
        self._arrived = self._last = arrived
        self._gaps = [0] * (len(INTER_TOKEN_BUCKETS) + 1)
        self._gaps_sum = 0.0
        self.first_token_seconds: float | None = None

    def first_token(self) -> None:
        self._last = time.perf_counter()
        self.first_token_seconds = round(self._last - self._arrived, 6)
        self._metrics.of_model(self._model, self._tier).first_token.observe(self._last - self._arrived)

    def token(self) -> float:
        """Give the seconds since the delta before."""
        now = time.perf_counter()
        gap = now - self._last
        self._last = now
        self._gaps[bisect_left(INTER_TOKEN_BUCKETS, gap)] += 1
        self._gaps_sum += gap
        return gap

    def end(self, receipt: Receipt) -> None:
        metrics, model = self._metrics, self._model
        seconds = time.perf_counter() - self._arrived
        metrics.finished(model, receipt.outcome.value).observe(seconds)
        of_model, charged = metrics.of_model(model, self._tier), receipt.charged
        kinds = (charged.prompt - charged.cached, charged.cached, charged.completion)
        for series, count in zip(of_model.tokens, kinds, strict=True):
            if count:
                series.inc(count)
        of_model.cost.inc(usd_number(receipt.cost))
        if receipt.outcome is Outcome.CLIENT_GONE:
            metrics.disconnects.labels(model).inc()
        if any(self._gaps):
            add_observations(of_model.inter_token, self._gaps, self._gaps_sum)


class _Reading(Collector):
    def __init__(self, name: str, text: str, labels: Sequence[str], read: Callable[[], Readings]) -> None:
        self._name, self._text, self._labels, self._read = name, text, labels, read

    def collect(self) -> list[Metric]:
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for values, reading in self._read().items():
            family.add_metric(values, reading)
        return [family]

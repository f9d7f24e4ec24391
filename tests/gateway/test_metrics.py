"""The request timer writes what prometheus_client's own `observe` would."""

import time

from prometheus_client import Histogram

from engine.base import TokenCounts
from gateway.telemetry.metrics import INTER_TOKEN_BUCKETS, Metrics, StreamTimer
from gateway.telemetry.receipt import Receipt
from pricing.cost import Tokens
from pricing.money import Picodollars
from pricing.reservation import Outcome
from pricing.tier import Tier


def samples(histogram: Histogram) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for metric in histogram.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def receipt(outcome: Outcome) -> Receipt:
    return Receipt(TokenCounts(3, 1, 50), Tokens(3, 1, 50), Picodollars(2 * 10**12), outcome)


def test_gathered_gaps_equal_single_observations() -> None:
    metrics = Metrics("0")
    plain = Histogram("farebox_inter_token_seconds", "", ["model"], buckets=INTER_TOKEN_BUCKETS, registry=None)
    timer = StreamTimer(metrics, "m", Tier.FLEX, time.perf_counter())
    timer.first_token()
    last = timer._last
    for _ in range(50):
        timer.token()
        plain.labels("m").observe(timer._last - last)
        last = timer._last
    timer.end(receipt(Outcome.FINISHED))
    gathered, single = samples(metrics.inter_token), samples(plain)
    assert gathered.keys() == single.keys()
    for name, value in single.items():
        assert abs(gathered[name] - value) < 1e-9


def test_counters_take_kinds_and_dollars() -> None:
    metrics = Metrics("0")
    timer = StreamTimer(metrics, "m", Tier.FLEX, time.perf_counter())
    timer.end(receipt(Outcome.CLIENT_GONE))
    read = metrics.registry.get_sample_value
    assert read("farebox_tokens_total", {"model": "m", "kind": "prompt", "tier": "flex"}) == 2
    assert read("farebox_tokens_total", {"model": "m", "kind": "cached", "tier": "flex"}) == 1
    assert read("farebox_tokens_total", {"model": "m", "kind": "completion", "tier": "flex"}) == 50
    assert read("farebox_cost_usd_total", {"model": "m", "tier": "flex"}) == 2
    assert read("farebox_disconnects_total", {"model": "m"}) == 1

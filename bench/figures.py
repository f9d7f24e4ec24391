"""What one load on one server came to."""

import statistics
from dataclasses import dataclass

from bench.machine import Watch


@dataclass(frozen=True, slots=True)
class Load:
    """What the client saw. Times in seconds; of answers in one piece only the requests are known."""

    seconds: float
    completed: int
    failed: int
    tokens: int
    first_token: list[float]
    between_tokens: list[float]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run. CPU is the front end's alone: `cpu_us_per_token` shares a request's whole cost among its tokens."""

    cpu_us_per_token: float
    cpu_ms_per_request: float
    tokens_per_second: float
    requests_per_second: float
    ttft_ms_median: float
    ttft_ms_p99: float
    itl_ms_median: float
    itl_ms_p99: float
    rss_mb: float
    kb_per_stream: float
    failed: int

    @classmethod
    def of(cls, load: Load, watch: Watch, streams: int) -> "Figures":
        grown = max(0, watch.bytes_peak - watch.bytes_before)
        return cls(
            cpu_us_per_token=watch.cpu_seconds / max(1, load.tokens) * 1e6,
            cpu_ms_per_request=watch.cpu_seconds / max(1, load.completed) * 1e3,
            tokens_per_second=load.tokens / load.seconds,
            requests_per_second=load.completed / load.seconds,
            ttft_ms_median=percentile(load.first_token, 50) * 1e3,
            ttft_ms_p99=percentile(load.first_token, 99) * 1e3,
            itl_ms_median=percentile(load.between_tokens, 50) * 1e3,
            itl_ms_p99=percentile(load.between_tokens, 99) * 1e3,
            rss_mb=watch.bytes_peak / 2**20,
            kb_per_stream=grown / streams / 1024 if streams else 0.0,
            failed=load.failed,
        )


def percentile(values: list[float], percent: int) -> float:
    """Nearest rank; 0 of no values."""
    if not values:
        return 0.0
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, len(ranked) * percent // 100)]


def median_of(runs: list[Figures], field: str) -> float:
    return float(statistics.median(getattr(run, field) for run in runs))


def median_ratio(runs: list[Figures], others: list[Figures], field: str) -> float | None:
    """The median of the ratios of runs that stood side by side; None where it says nothing."""
    pairs = [(getattr(run, field), getattr(other, field)) for run, other in zip(runs, others, strict=False)]
    ratios = [mine / theirs for mine, theirs in pairs if theirs > 0]
    return statistics.median(ratios) if ratios else None

"""Many observations for a histogram at once: the one file of the gateway that uses prometheus-client's insides.

Observing each token's time by itself takes 2 µs more for a streamed token.
"""

from collections.abc import Sequence

from prometheus_client import Histogram


def add_observations(histogram: Histogram, counts: Sequence[int], total: float) -> None:
    """Add `counts` observations, by bucket, that sum up to `total`. The histogram is one that `labels` has returned.

    These are the fields that its own `observe` writes, and a test holds them to the same outcome.
    """
    for bucket, count in zip(histogram._buckets, counts, strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(total)

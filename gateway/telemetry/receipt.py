"""What one request came to. The log line, the metrics, the limits, webhooks and idempotency read it."""

from dataclasses import dataclass

from engine.base import TokenCounts
from pricing.cost import Tokens
from pricing.money import Picodollars, format_usd
from pricing.reservation import Outcome


@dataclass(frozen=True, slots=True)
class Receipt:
    """Made once, when a request is settled.

    `counts` are the engine's, `charged` those of them that `cost` is for. `queued` says that the client left while the
    engine had no room; `first_token_seconds` is there for streams that had one.
    """

    counts: TokenCounts
    charged: Tokens
    cost: Picodollars
    outcome: Outcome
    queued: bool = False
    first_token_seconds: float | None = None

    @property
    def used(self) -> int | None:
        """What counts against tokens per minute: what the engine worked on, charged or not.

        None where it stays what was admitted: who fills the queue and leaves pays with that.
        """
        if self.queued:
            return None
        worked = self.charged.prompt or self.counts.completion
        return self.counts.prompt + self.counts.completion if worked else 0

    def fields(self) -> dict[str, object]:
        """For the log line."""
        return {
            "prompt_tokens": self.counts.prompt,
            "cached_tokens": self.counts.cached,
            "completion_tokens": self.counts.completion,
            "cost_usd": format_usd(self.cost),
            "first_token_seconds": self.first_token_seconds,
            "outcome": self.outcome.value,
        }

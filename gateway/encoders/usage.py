"""The `usage` of an answer: the engine's counts and their exact cost."""

from engine.base import TokenCounts
from gateway.schemas.openai import Usage
from pricing.money import Picodollars, usd_number


def usage_fields(counts: TokenCounts, cost: Picodollars) -> Usage:
    """OpenAI's `usage` plus `estimated_cost` in US dollars, as on the pages."""
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
        "prompt_tokens_details": {"cached_tokens": counts.cached},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
        "estimated_cost": usd_number(cost),
    }

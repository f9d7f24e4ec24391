"""What a request costs. Two pure functions on integers; every charge comes from here."""

from __future__ import annotations

from dataclasses import dataclass

from pricing.money import PICODOLLARS_MAX, InvalidAmount, Picodollars, format_usd
from pricing.price import Price


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token counts of one request, as the engine reports them. `cached` is a part of `prompt`."""

    prompt: int
    cached: int
    completion: int

    def __post_init__(self) -> None:
        if not (0 <= self.cached <= self.prompt and self.completion >= 0):
            raise InvalidAmount(
                f"Token counts can't be prompt={self.prompt}, cached={self.cached}, completion={self.completion}: "
                "none is negative, and cached tokens are a part of the prompt."
            )


NO_TOKENS = Tokens(0, 0, 0)


def cost(price: Price, tokens: Tokens) -> Picodollars:
    """Exact: (prompt - cached) x input + cached x cached_input + completion x output."""
    return Picodollars(
        (tokens.prompt - tokens.cached) * price.input
        + tokens.cached * price.cached_input
        + tokens.completion * price.output
    )


def worst_case(price: Price, prompt: int, completion_max: int) -> Picodollars:
    """What a request can cost at most: nothing cached, every completion token used (already n x max_tokens).

    Raises InvalidAmount where that is more than the ledger holds.
    """
    most = cost(price, Tokens(prompt, 0, completion_max))
    if most > PICODOLLARS_MAX:
        raise InvalidAmount(
            f"{prompt} prompt and {completion_max} completion tokens may cost ${format_usd(most)}, more than the "
            f"ledger holds (${format_usd(PICODOLLARS_MAX)}). Ask for fewer tokens."
        )
    return most

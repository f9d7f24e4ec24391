"""What a model costs: picodollars per token, read from USD per million tokens."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from pricing.money import InvalidAmount, Picodollars, parse_usd
from storage.text import shorten

_TOKENS_PER_PRICE: Final = 10**6
_PRICE_USD_PER_MILLION_MAX: Final = 100_000  # far above any model; keeps the worst case of a request in a BIGINT


@dataclass(frozen=True, slots=True)
class Price:
    """Picodollars per token of each kind. `cached_input` is for prompt tokens found in the prefix cache."""

    input: Picodollars
    output: Picodollars
    cached_input: Picodollars

    def __post_init__(self) -> None:
        most = _PRICE_USD_PER_MILLION_MAX * 10**6
        for kind, per_token in (
            ("input", self.input),
            ("output", self.output),
            ("cached_input", self.cached_input),
        ):
            if not 0 <= per_token <= most:
                raise InvalidAmount(
                    f"The {kind} price is {per_token} picodollars per token; it must be from 0 to {most}."
                )
        if self.cached_input > self.input:
            # A reservation counts every prompt token at the input price. A dearer cached token could exceed it.
            raise InvalidAmount(
                f"The cached_input price ({self.cached_input} picodollars per token) is above the input price "
                f"({self.input}). Lower it, or leave it out to charge cached tokens like others."
            )

    @classmethod
    def per_million(cls, input: str, output: str, cached_input: str | None = None) -> Price:
        """Read prices in USD per million tokens, as strings with at most six decimals: "0.13".

        Without `cached_input`, cached prompt tokens cost what others cost. Raises InvalidAmount (a ValueError).
        """
        return cls(
            input=_per_token("input", input),
            output=_per_token("output", output),
            cached_input=_per_token("cached_input", input if cached_input is None else cached_input),
        )

    def times(self, factor: Fraction, *, rounded_down: bool = False) -> Price:
        """Every price times the factor. Raises InvalidAmount where one is then no whole number of picodollars per
        token, unless it is to be rounded down."""
        return Price(
            input=_times("input", self.input, factor, rounded_down),
            output=_times("output", self.output, factor, rounded_down),
            cached_input=_times("cached_input", self.cached_input, factor, rounded_down),
        )


def _times(kind: str, per_token: Picodollars, factor: Fraction, rounded_down: bool) -> Picodollars:
    exact = per_token * factor
    if exact.denominator != 1 and not rounded_down:
        raise InvalidAmount(
            f"The {kind} price of {per_token} picodollars per token times {factor} is {exact}, which "
            "is no whole number of picodollars. Choose a factor with fewer decimals."
        )
    return Picodollars(exact.numerator // exact.denominator)


def _per_token(kind: str, text: str) -> Picodollars:
    try:
        per_million = parse_usd(text)
    except InvalidAmount as error:
        raise InvalidAmount(f"The {kind} price is wrong: {error}") from None
    per_token, remainder = divmod(per_million, _TOKENS_PER_PRICE)
    if remainder:
        raise InvalidAmount(
            f"The {kind} price {shorten(text)} has more than six decimals. Prices are USD per million tokens with at "
            "most six decimals, so that one token costs a whole number of picodollars."
        )
    return Picodollars(per_token)

"""The price on a card: of its own, or a multiple of the base model's."""

from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Tag

from pricing.money import Picodollars
from pricing.price import Price

FACTOR_MAX = 100
FACTOR_DECIMALS_MAX = 6


class CardPrice(BaseModel):
    """USD per million tokens, as strings with at most six decimals."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    input: str
    output: str
    cached_input: str | None = None

    def price(self) -> Price:
        """Raises ValueError with a sentence."""
        return Price.per_million(input=self.input, output=self.output, cached_input=self.cached_input)


class PriceOfBase(BaseModel):
    """So many times what the base model costs, as a string: "1.5"."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    of_base: str

    def price(self, base: Price) -> Price:
        """Raises ValueError with a sentence; a token must cost a whole number of picodollars."""
        factor = self._factor()
        return Price(
            input=_times(factor, base.input, "input"),
            output=_times(factor, base.output, "output"),
            cached_input=_times(factor, base.cached_input, "cached_input"),
        )

    def _factor(self) -> Decimal:
        try:
            factor = Decimal(self.of_base)
        except InvalidOperation:
            factor = Decimal("NaN")
        exponent = factor.as_tuple().exponent
        if not (factor.is_finite() and 0 <= factor <= FACTOR_MAX and -int(exponent) <= FACTOR_DECIMALS_MAX):
            raise ValueError(
                f"of_base is {self.of_base[:40]!r}; it must be a number from 0 to {FACTOR_MAX} with at most "
                f'{FACTOR_DECIMALS_MAX} decimals, as a string, such as "1.5".'
            )
        return factor


def _kind(price: object) -> str:
    return "of_base" if isinstance(price, PriceOfBase) or (isinstance(price, dict) and "of_base" in price) else "own"


AnyPrice = Annotated[
    Annotated[CardPrice, Tag("own")] | Annotated[PriceOfBase, Tag("of_base")],
    Discriminator(_kind),
]


def _times(factor: Decimal, per_token: int, kind: str) -> Picodollars:
    exact = factor * per_token
    if exact != int(exact):
        raise ValueError(
            f"the {kind} price would be {exact:f} picodollars per token, which the ledger can't count; choose another "
            "of_base, or write the price out."
        )
    return Picodollars(int(exact))

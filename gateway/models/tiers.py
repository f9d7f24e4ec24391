"""The tiers that a model card offers, each with its price, and which of them a request gets."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gateway.errors import InvalidRequest
from pricing.money import InvalidAmount
from pricing.price import Price
from pricing.tier import Tier

ServiceTier = Literal["auto", "default", "flex", "priority"]
SERVICE_TIERS: tuple[ServiceTier, ...] = ("auto", "default", "flex", "priority")

BATCH_DISCOUNT = "0.5"
DECIMAL = r"[0-9]{1,3}(\.[0-9]{1,6})?"
SURCHARGE_MAX = 100


class CardTier(BaseModel):
    """What a tier costs, as one exact decimal: `discount` is the share that is taken off the card's price ("0.5"),
    `surcharge` what the price is multiplied by ("1.75")."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    discount: str | None = Field(None, pattern=f"^{DECIMAL}$")
    surcharge: str | None = Field(None, pattern=f"^{DECIMAL}$")

    @field_validator("discount")
    @classmethod
    def _a_share(cls, value: str | None) -> str | None:
        if value is not None and Fraction(value) > 1:
            raise ValueError(f"it is the share that is taken off, from 0 to 1; got {value}")
        return value

    @field_validator("surcharge")
    @classmethod
    def _a_factor(cls, value: str | None) -> str | None:
        if value is not None and not 1 <= Fraction(value) <= SURCHARGE_MAX:
            raise ValueError(
                f"the price is multiplied by it, so it is from 1 to {SURCHARGE_MAX}: 1.75 for three quarters more; "
                f"got {value}"
            )
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.discount is None) == (self.surcharge is None):
            raise ValueError('it needs either a discount, such as "0.5", or a surcharge, such as "1.75"')
        return self

    @property
    def factor(self) -> Fraction:
        return Fraction(self.surcharge) if self.surcharge is not None else 1 - Fraction(self.discount or "0")


def tier_prices(price: Price, tiers: Mapping[Any, CardTier], batch_discount: str | None) -> dict[Tier, Price]:
    """The price of each tier that there is; `tiers` are by name. Raises InvalidAmount where one isn't exact; the batch
    price that the card doesn't name is rounded down instead."""
    prices = {Tier.DEFAULT: price}
    for name, tier in tiers.items():
        try:
            prices[Tier(name)] = price.times(tier.factor)
        except InvalidAmount as error:
            raise InvalidAmount(f"Of the tier {name}: {error}") from None
    factor = 1 - Fraction(batch_discount or BATCH_DISCOUNT)
    try:
        prices[Tier.BATCH] = price.times(factor, rounded_down=batch_discount is None)
    except InvalidAmount as error:
        raise InvalidAmount(f"With its batch_discount: {error}") from None
    return prices


def offered(prices: Mapping[Tier, Price]) -> list[ServiceTier]:
    """What a client may ask for."""
    return ["auto", *(name for name in SERVICE_TIERS if name != "auto" and Tier(name) in prices)]


def tier_of(model: str, prices: Mapping[Tier, Price], asked: str | None, usual: Tier | None) -> Tier:
    """The tier of a request that asks for this one; `usual` is its key's, which `auto` and nothing mean where the model
    offers it. Raises InvalidRequest(unsupported_parameter) for one without a price.
    """
    if asked is None or asked == "auto":
        return usual if usual is not None and usual in prices else Tier.DEFAULT
    if asked in SERVICE_TIERS and Tier(asked) in prices:
        return Tier(asked)
    names = ", ".join(offered(prices))
    raise InvalidRequest(
        f'`service_tier` can\'t be "{asked}": the model {model} offers {names}.',
        code="unsupported_parameter",
        param="service_tier",
    )

"""LoRA adapters as models: a card that names its base, and what both together are."""

from dataclasses import replace

from pydantic import Field

from engine.adapters import Adapter
from gateway.models.card_price import AnyPrice, PriceOfBase
from gateway.models.life import Life
from gateway.models.model import Model, PrefixCache
from gateway.models.tiers import tier_prices

# Numbers of the adapters on cards; those of adapters that are added while the server runs come from the database, and
# stay below.
FIRST_OF_CARDS = 1_000_000_000


class AdapterCard(Life):
    """An adapter as it is offered. What it doesn't say is as with its base."""

    name: str = Field(min_length=1, max_length=200)
    base: str = Field(min_length=1)
    adapter: str = Field(min_length=1)
    price: AnyPrice
    description: str = ""
    tags: list[str] | None = None
    prefix_cache: PrefixCache | None = None


def adapted(base: Model, card: AdapterCard, number: int, account_id: int | None = None) -> Model:
    """The base model with the adapter. Raises ValueError with a sentence about a price that can't be, or a base that
    takes no adapters."""
    if base.adapter is not None:
        raise ValueError(f'"{card.base}" is an adapter itself; name the model that it is for.')
    if base.card.task != "generate":
        raise ValueError(f'"{card.base}" makes no text; adapters are for models that do.')
    if isinstance(card.price, PriceOfBase):
        prices = {tier: card.price.price(price) for tier, price in base.prices.items()}
    else:
        prices = tier_prices(card.price.price(), base.card.tiers, base.card.batch_discount)
    own = base.card.model_copy(
        update={
            "name": card.name,
            "description": card.description,
            "deprecated": card.deprecated,
            "sunset": card.sunset,
            "replaced_by": card.replaced_by,
            **({} if card.tags is None else {"tags": card.tags}),
            **({} if card.prefix_cache is None else {"prefix_cache": card.prefix_cache}),
        }
    )
    adapter = Adapter(number, card.name, card.adapter)
    return replace(
        base, name=card.name, card=own, prices=prices, adapter=adapter, base=base.name, account_id=account_id
    )

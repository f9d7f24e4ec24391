"""A model card, and the model that is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, JsonValue

from engine.adapters import Adapter
from engine.base import ChatFormat, EngineSpec
from engine.facts import ModelTask
from gateway.models.card_price import CardPrice
from gateway.models.life import Life
from gateway.models.parameters import Profile
from gateway.models.tiers import CardTier
from gateway.setting_types import Precision
from pricing.price import Price
from pricing.tier import Tier

Task = ModelTask
PrefixCache = Literal["shared", "account", "key"]


class Alias(Life):
    """Another name of a model, which is billed and limited as the one that it names."""

    name: str = Field(min_length=1, max_length=200)
    alias_of: str
    description: str = ""


class Card(Life):
    """One model as it is offered. Lengths are in tokens."""

    name: str = Field(min_length=1, max_length=200)
    source: str = Field(min_length=1)
    precision: Precision = "auto"
    context_length: int = Field(gt=0)
    fit_context: bool = False  # a shorter one, where the memory doesn't hold the weights' own
    default_max_tokens: int = Field(gt=0)
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template: str | None = None
    hold_forced_calls: bool = True
    task: Task = "generate"
    prefix_cache: PrefixCache = "shared"  # who shares the prefixes that the engine keeps
    profile: str
    description: str = ""
    tags: list[str] = Field(default_factory=list)
    price: CardPrice
    tiers: dict[Literal["flex", "priority"], CardTier] = Field(default_factory=dict)
    batch_discount: str | None = Field(None, pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$")
    engine: dict[str, JsonValue] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model:
    """A card made ready: its prices in picodollars, its parameter ranges, and what its engine must load."""

    name: str
    card: Card
    prices: Mapping[Tier, Price]
    profile: Profile
    engine: EngineSpec
    chat_format: ChatFormat
    adapter: Adapter | None = None
    base: str | None = None  # the model that the adapter is for
    account_id: int | None = None  # whose alone it is; None: everybody's
    alias_of: str | None = None  # the model that this is another name of

    @property
    def price(self) -> Price:
        """Of the default tier."""
        return self.prices[Tier.DEFAULT]

    @property
    def context_length(self) -> int:
        return self.card.context_length

    @property
    def root(self) -> str:
        """The model itself, where this is another name: what is billed, limited and allowed."""
        return self.alias_of or self.name

    def called(self, alias: Alias) -> "Model":
        """The same under another name, which may have an end of its own."""
        own: dict[str, object] = {"name": alias.name, "description": alias.description or self.card.description}
        if alias.deprecated is not None:
            own |= {"deprecated": alias.deprecated, "sunset": alias.sunset, "replaced_by": alias.replaced_by}
        return replace(self, name=alias.name, card=self.card.model_copy(update=own), alias_of=self.name)

    def visible_to(self, account_id: int) -> bool:
        """Whether this account may know of it."""
        return self.account_id is None or self.account_id == account_id

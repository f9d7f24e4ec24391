"""`/admin/adapters`: what it takes and gives."""

from typing import Annotated

from pydantic import Field

from gateway.models.adapter_cards import AdapterCard
from gateway.models.adapter_store import AddedAdapter
from gateway.models.card_price import AnyPrice
from gateway.protocol.admin import Id, Plain
from gateway.protocol.body import StrictBody
from pricing.clock import iso_time
from pricing.text import checked_name


class NewAdapter(StrictBody):
    """A LoRA adapter for the model `base`: a folder that every process can read, or an id of the hub. Without
    `account_id` it is everybody's."""

    name: Annotated[Plain, Field(min_length=1, max_length=200)]
    base: Annotated[Plain, Field(min_length=1)]
    adapter: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
    price: AnyPrice
    account_id: Id | None = None
    description: Annotated[str, Field(max_length=4096)] = ""
    tags: list[Plain] | None = Field(None, max_length=64)

    def card(self) -> AdapterCard:
        return AdapterCard(
            name=checked_name("name of a model", self.name),
            base=self.base,
            adapter=self.adapter,
            price=self.price,
            description=self.description,
            tags=self.tags,
        )


def adapter_fields(added: AddedAdapter) -> dict[str, object]:
    card = added.card
    return {
        "object": "adapter",
        "id": added.id,
        "name": card.name,
        "base": card.base,
        "adapter": card.adapter,
        "price": card.price.model_dump(exclude_none=True),
        "account_id": added.account_id,
        "description": card.description,
        "tags": card.tags,
        "created_at": iso_time(added.created_at),
    }

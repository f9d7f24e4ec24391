"""What a client may ask of Anthropic's list of models."""

from typing import ClassVar

from pydantic import ConfigDict, Field, model_validator

from gateway.protocol.body import Body, conflict
from gateway.protocol.schema import SENT, JSONSchema, forbids

PAGE_DEFAULT, PAGE_MAX = 20, 1000  # Anthropic's


class ModelsPage(Body):
    """One page, in the order of the list: the first models, those after a model, or the last ones before one."""

    model_config = ConfigDict(strict=False)  # in a query string everything is text

    limit: int = Field(PAGE_DEFAULT, ge=1, le=PAGE_MAX)
    before_id: str | None = None
    after_id: str | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (forbids({"before_id": SENT}, {"after_id": SENT}),)

    @model_validator(mode="after")
    def _one_way(self) -> "ModelsPage":
        if self.before_id is not None and self.after_id is not None:
            raise conflict("after_id", "`before_id` and `after_id` exclude each other; send one.")
        return self

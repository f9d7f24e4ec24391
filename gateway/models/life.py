"""A name's end: from when on it is deprecated, when it goes, and what takes its place."""

import time
from datetime import UTC, date, datetime
from email.utils import format_datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

# A TOML date, or its ISO 8601 text where the card is JSON.
Day = Annotated[date, Field(strict=False)]


class Told(TypedDict, total=False):
    deprecated: str
    sunset: str
    replaced_by: str


class Life(BaseModel):
    """What a card or an alias says of its end. A day begins at midnight UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    deprecated: Day | None = None
    sunset: Day | None = None  # from this day on requests are refused
    replaced_by: str | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "Life":
        if self.deprecated is None and (self.sunset is not None or self.replaced_by is not None):
            raise ValueError("`sunset` and `replaced_by` need `deprecated`, the day from which the model is")
        if self.deprecated is not None and self.sunset is not None and self.sunset < self.deprecated:
            raise ValueError("`sunset` must not come before `deprecated`")
        return self

    @property
    def over(self) -> bool:
        return self.sunset is not None and time.time() >= unix(self.sunset)

    def told(self) -> Told:
        """For a page: what there is, with days as ISO 8601 has them."""
        found: Told = {}
        if self.deprecated is not None:
            found["deprecated"] = self.deprecated.isoformat()
        if self.sunset is not None:
            found["sunset"] = self.sunset.isoformat()
        if self.replaced_by is not None:
            found["replaced_by"] = self.replaced_by
        return found

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`Deprecation` (RFC 9745) and `Sunset` (RFC 8594) of an answer; none where no end is known."""
        found = []
        if self.deprecated is not None:
            found.append((b"deprecation", b"@%d" % unix(self.deprecated)))
        if self.sunset is not None:
            found.append((b"sunset", format_datetime(_midnight(self.sunset), usegmt=True).encode()))
        return found


def timestamp(day: date) -> str:
    """Its beginning, as RFC 3339 has it."""
    return _midnight(day).isoformat().replace("+00:00", "Z")


def unix(day: date) -> int:
    """Its beginning, in seconds."""
    return int(_midnight(day).timestamp())


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)

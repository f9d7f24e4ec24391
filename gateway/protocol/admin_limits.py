"""Limits in `/admin`: `{"kind": "day", "amount_usd": "5.00", "time_zone": "Europe/Berlin", "model": "..."}`."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from gateway.protocol.body import StrictBody, conflict
from pricing.balance import LIMITS_CAP, UTC, Balance, Limit, LimitBalance, LimitKind
from pricing.clock import iso_time
from pricing.money import Picodollars, format_usd, parse_usd
from pricing.periods import Weekday
from storage.errors import InvalidSetting

USD_PATTERN = r"^-?[0-9]{1,6}(\.[0-9]{1,12})?$"


def _usd(value: object) -> Picodollars:
    if not isinstance(value, str):
        raise ValueError('it must be US dollars as a string, such as "12.50".')  # noqa: TRY004 - pydantic's way
    return parse_usd(value)


USD = Annotated[
    Picodollars,
    BeforeValidator(_usd),
    WithJsonSchema({"type": "string", "pattern": USD_PATTERN, "description": 'US dollars, such as "12.50".'}),
]


class LimitBody(StrictBody):
    """`{"kind": "month", "amount_usd": "25.00"}`, or `{"kind": "none"}`."""

    kind: Literal["none", "prepaid", "hour", "day", "week", "month", "total"]
    amount_usd: USD = Field(Picodollars(0), json_schema_extra={"default": "0.00"})  # as it would be sent
    time_zone: Annotated[str, Field(max_length=64)] = UTC
    week_start: Weekday = "monday"
    model: Annotated[str, Field(max_length=256)] | None = None

    def limit(self) -> Limit:
        """Raises InvalidAmount, InvalidSetting."""
        return Limit(LimitKind(self.kind), self.amount_usd, self.time_zone, self.week_start, self.model)


class Limited(StrictBody):
    """What has `limits`, or the one `limit` of before there were several."""

    limit: LimitBody | None = None
    limits: list[LimitBody] | None = Field(None, max_length=LIMITS_CAP)

    @model_validator(mode="after")
    def _one_of_both(self) -> "Limited":
        if self.limit is not None and self.limits is not None:
            raise conflict("limits", "`limit` is a short way to say `limits`; give one of them.")
        return self

    def wanted(self, most: int) -> tuple[Limit, ...]:
        """At most so many. Raises InvalidAmount, InvalidSetting."""
        given = self.limits if self.limits is not None else [self.limit] if self.limit is not None else []
        if len(given) > most:
            raise InvalidSetting(f"`limits` has {len(given)} limits; at most {most} are allowed.")
        return tuple(body.limit() for body in given)


class Limits(StrictBody):
    """All limits of an account; an empty list for none."""

    limits: list[LimitBody] = Field(max_length=LIMITS_CAP)

    def wanted(self, most: int) -> tuple[Limit, ...]:
        """At most so many. Raises InvalidAmount, InvalidSetting."""
        return Limited(limits=self.limits).wanted(most)


def limit_fields(limits: tuple[Limit, ...]) -> dict[str, object] | None:
    """The only limit; None where there are several."""
    if len(limits) > 1:
        return None
    limit = limits[0] if limits else None
    kind = LimitKind.NONE if limit is None else limit.kind
    return {"kind": kind.value, "amount_usd": None if limit is None else format_usd(limit.amount)}


def limits_fields(limits: tuple[Limit, ...]) -> list[dict[str, object]]:
    """As they were given."""
    return [
        {
            "kind": limit.kind.value,
            "amount_usd": format_usd(limit.amount),
            "time_zone": limit.zone,
            "week_start": limit.week_start if limit.kind is LimitKind.WEEK else None,
            "model": limit.model,
        }
        for limit in limits
    ]


def balance_fields(balance: Balance) -> dict[str, object]:
    """`spent_usd` and `reserved_usd` are those of the only limit's period; with several, or none, of all time."""
    return {
        "period_start": _time(balance.period_start),
        "spent_usd": format_usd(balance.spent),
        "reserved_usd": format_usd(balance.reserved),
        "left_usd": None if balance.left is None else format_usd(balance.left),
        "spent_total_usd": format_usd(balance.spent_total),
        "limits": [_standing_fields(one) for one in balance.limits],
    }


def _standing_fields(one: LimitBalance) -> dict[str, object]:
    return {
        "kind": one.limit.kind.value,
        "model": one.limit.model,
        "period_start": _time(one.period_start),
        "period_end": _time(one.period_end),
        "spent_usd": format_usd(one.spent),
        "reserved_usd": format_usd(one.reserved),
        "left_usd": format_usd(one.left),
    }


def _time(at: int | None) -> str | None:
    return iso_time(at) if at else None

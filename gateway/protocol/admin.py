"""`/admin`: what it takes and gives. Amounts are decimal strings in US dollars ("25.00"), times ISO 8601."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from gateway.protocol.body import Query, StrictBody, conflict
from pricing.accounts import Account
from pricing.audit import AuditRecord
from pricing.balance import Balance, Limit, LimitKind
from pricing.clock import iso_time
from pricing.key import WEIGHT_MAX, Key, KeyTerms, Role
from pricing.money import Picodollars, format_usd, parse_usd
from pricing.tier import Tier
from pricing.usage import Dimension, UsageTotal

GRACE_SECONDS_MAX = 90 * 86_400
PAGE_MAX = 1000
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
USD_PATTERN = r"^-?[0-9]{1,6}(\.[0-9]{1,12})?$"
ID_MAX = 2**63 - 1

OwnDimension = Literal["day", "key", "model"]  # a key's own usage has one account


def _usd(value: object) -> Picodollars:
    if not isinstance(value, str):
        raise ValueError('it must be US dollars as a string, such as "12.50".')  # noqa: TRY004 - pydantic's way
    return parse_usd(value)


def _moment(value: object) -> int:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError("it must be a time such as 2027-01-31T00:00:00Z.") from None
    if moment.tzinfo is None:
        raise ValueError("it must name its time zone, such as 2027-01-31T00:00:00Z.")
    return int(moment.astimezone(UTC).timestamp() * 1000)


def _day(value: object) -> date:
    # Pydantic would take seconds since 1970 too.
    if not isinstance(value, str) or not DAY.fullmatch(value):
        raise ValueError("it must be a day such as 2027-01-31.")
    return date.fromisoformat(value)


def _dimensions(value: object) -> object:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _by_default() -> list[Dimension]:
    return ["day", "model"]


def _own_default() -> list[OwnDimension]:
    return ["day", "model"]


USD = Annotated[
    Picodollars,
    BeforeValidator(_usd),
    WithJsonSchema({"type": "string", "pattern": USD_PATTERN, "description": 'US dollars, such as "12.50".'}),
]
Moment = Annotated[int, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
"""Milliseconds since 1970 UTC."""
Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
Id = Annotated[int, Field(ge=0, le=ID_MAX)]
Plain = Annotated[str, Field(max_length=256, pattern=r"^[^\x00]*$")]  # PostgreSQL holds no NUL


class LimitBody(StrictBody):
    """`{"kind": "month", "amount_usd": "25.00"}`, or `{"kind": "none"}`."""

    kind: Literal["none", "prepaid", "day", "month", "total"]
    amount_usd: USD = Field(Picodollars(0), json_schema_extra={"default": "0.00"})  # as it would be sent

    def limit(self) -> Limit:
        """Raises InvalidAmount."""
        return Limit(LimitKind(self.kind), self.amount_usd)


class NewAccount(StrictBody):
    name: str
    limit: LimitBody = LimitBody(kind="none")


class Rename(StrictBody):
    name: str


class Weight(StrictBody):
    """An account's share of an engine that many want: 100 is usual, 200 gets twice as many tokens."""

    weight: int = Field(ge=1, le=WEIGHT_MAX)


class Credit(StrictBody):
    amount_usd: USD
    reference: str | None = None


class Terms(StrictBody):
    """What a key may do; what is left out is not limited (the settings' defaults apply to rates)."""

    limit: LimitBody = LimitBody(kind="none")
    models: list[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    expires_at: Moment | None = None
    tier: Literal["default", "flex", "priority"] | None = None

    def terms(self) -> KeyTerms:
        """Raises InvalidSetting, InvalidAmount."""
        return KeyTerms(
            self.limit.limit(),
            None if self.models is None else frozenset(self.models),
            self.requests_per_minute,
            self.tokens_per_minute,
            self.concurrent_requests,
            self.expires_at,
            None if self.tier is None else Tier(self.tier),
        )


class NewKeyBody(StrictBody):
    account_id: Id
    name: str
    role: Role = "user"
    terms: Terms = Terms()


class Rotation(StrictBody):
    grace_seconds: int = Field(0, ge=0, le=GRACE_SECONDS_MAX)


class Page(Query):
    limit: int = Field(100, ge=1, le=PAGE_MAX)
    after: Id = 0


class AccountPage(Page):
    name: Annotated[Plain, Field(min_length=1)] | None = None


class KeyPage(Page):
    account_id: Id | None = None
    prefix: Annotated[Plain, Field(min_length=1)] | None = None
    include_revoked: bool = False


class AuditPage(Query):
    limit: int = Field(100, ge=1, le=PAGE_MAX)
    before: Id | None = None
    account_id: Id | None = None
    key_id: Id | None = None


class UsageQuery(Query):
    """Days are UTC and inclusive."""

    since: Day | None = None
    until: Day | None = None
    model: Plain | None = None
    format: Literal["json", "csv"] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "UsageQuery":
        if self.since is not None and self.until is not None and self.since > self.until:
            raise conflict("until", f"`until` ({self.until}) is before `since` ({self.since}).")
        return self


class OwnUsageQuery(UsageQuery):
    by: Annotated[list[OwnDimension], BeforeValidator(_dimensions)] = Field(default_factory=_own_default)


class AdminUsageQuery(UsageQuery):
    by: Annotated[list[Dimension], BeforeValidator(_dimensions)] = Field(default_factory=_by_default)
    account_id: Id | None = None
    key_id: Id | None = None


class ExportQuery(Query):
    """Entries settled from `since` to before `until`."""

    format: Literal["csv", "parquet"] = "csv"
    since: Moment | None = None
    until: Moment | None = None
    account_id: Id | None = None
    key_id: Id | None = None


def limit_fields(limit: Limit) -> dict[str, object]:
    kind = limit.kind.value
    return {"kind": kind, "amount_usd": None if limit.kind is LimitKind.NONE else format_usd(limit.amount)}


def balance_fields(balance: Balance) -> dict[str, object]:
    """`spent` and `reserved` belong to the current period, where the limit has periods."""
    return {
        "period_start": iso_time(balance.period_start) if balance.period_start else None,
        "spent_usd": format_usd(balance.spent),
        "reserved_usd": format_usd(balance.reserved),
        "left_usd": None if balance.left is None else format_usd(balance.left),
        "spent_total_usd": format_usd(balance.spent_total),
    }


def account_fields(account: Account, balance: Balance) -> dict[str, object]:
    return {
        "object": "account",
        "id": account.id,
        "name": account.name,
        "limit": limit_fields(balance.limit),
        "balance": balance_fields(balance),
        "created_at": iso_time(account.created_at),
        "suspended_at": _time(account.suspended_at),
        "weight": account.weight,
    }


def key_fields(key: Key, balance: Balance) -> dict[str, object]:
    """A key without its secret, which nobody has."""
    terms = key.terms
    return {
        "object": "key",
        "id": key.id,
        "account_id": key.account_id,
        "name": key.name,
        "prefix": key.prefix,
        "role": key.role,
        "terms": {
            "limit": limit_fields(terms.limit),
            "models": None if terms.models is None else sorted(terms.models),
            "requests_per_minute": terms.requests_per_minute,
            "tokens_per_minute": terms.tokens_per_minute,
            "concurrent_requests": terms.concurrent_requests,
            "expires_at": _time(terms.expires_at),
            "tier": terms.tier,
        },
        "balance": balance_fields(balance),
        "created_at": iso_time(key.created_at),
        "revoked_at": _time(key.revoked_at),
        "previous_secret_until": _time(key.previous_until),
    }


def total_fields(total: UsageTotal) -> dict[str, object]:
    """One row of totals, without the dimensions that weren't asked for."""
    dimensions: dict[str, object] = {
        "day": total.day,
        "account_id": total.account_id,
        "key_id": total.key_id,
        "model": total.model,
    }
    return {name: value for name, value in dimensions.items() if value is not None} | {
        "requests": total.requests,
        "prompt_tokens": total.tokens.prompt,
        "cached_tokens": total.tokens.cached,
        "completion_tokens": total.tokens.completion,
        "cost_usd": format_usd(total.cost),
    }


def audit_fields(record: AuditRecord, detail: object) -> dict[str, object]:
    return {
        "object": "audit_record",
        "id": record.id,
        "at": iso_time(record.at),
        "actor": record.actor,
        "action": record.action,
        "account_id": record.account_id,
        "key_id": record.key_id,
        "changes": detail,
    }


def _time(at: int | None) -> str | None:
    return None if at is None else iso_time(at)

"""`/admin`: what it takes and gives. Amounts are decimal strings in US dollars ("25.00"), times ISO 8601."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from gateway.protocol.admin_limits import USD, Limited, balance_fields, limit_fields, limits_fields
from gateway.protocol.body import Query, StrictBody, conflict
from pricing.accounts import Account
from pricing.audit import AuditRecord
from pricing.balance import Balance
from pricing.clock import iso_time
from pricing.key import WEIGHT_MAX, Key, KeyTerms, Role
from pricing.money import format_usd
from pricing.tier import Tier
from pricing.usage import Dimension, UsageTotal

GRACE_SECONDS_MAX = 90 * 86_400
PAGE_MAX = 1000
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
ID_MAX = 2**63 - 1

OwnDimension = Literal["day", "hour", "key", "model", "user"]  # a key's own usage has one account


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


Moment = Annotated[int, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
"""Milliseconds since 1970 UTC."""
Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
Id = Annotated[int, Field(ge=0, le=ID_MAX)]
Plain = Annotated[str, Field(max_length=256, pattern=r"^[^\x00]*$")]  # PostgreSQL holds no NUL


class NewAccount(Limited):
    name: str


class Rename(StrictBody):
    name: str


class Weight(StrictBody):
    """An account's share of an engine that many want: 100 is usual, 200 gets twice as many tokens."""

    weight: int = Field(ge=1, le=WEIGHT_MAX)


class Credit(StrictBody):
    amount_usd: USD
    reference: str | None = None


class Terms(Limited):
    """What a key may do; what is left out is not limited (the settings' defaults apply to rates)."""

    models: list[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    expires_at: Moment | None = None
    tier: Literal["default", "flex", "priority"] | None = None

    def terms(self, limits_max: int) -> KeyTerms:
        """Raises InvalidSetting, InvalidAmount."""
        return KeyTerms(
            self.wanted(limits_max),
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
    user: Annotated[Plain, Field(min_length=1)] | None = None
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


def account_fields(account: Account, balance: Balance) -> dict[str, object]:
    return {
        "object": "account",
        "id": account.id,
        "name": account.name,
        "limit": limit_fields(account.limits),
        "limits": limits_fields(account.limits),
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
            "limit": limit_fields(terms.limits),
            "limits": limits_fields(terms.limits),
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
        "hour": total.hour,
        "account_id": total.account_id,
        "key_id": total.key_id,
        "model": total.model,
        "user": total.user,
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

"""The shapes of what `/v1/usage`, `/v1/requests`, `/v1/me` and `/admin` give, for the documents.

Money is in US dollars as decimal strings, times are ISO 8601.
"""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from gateway.schemas.openai import PromptTokensDetails
from pricing.balance import LimitKind
from pricing.key import Role
from pricing.periods import Weekday


class SpendingLimit(TypedDict):
    """The only limit; in its place null where there are several."""

    kind: LimitKind
    amount_usd: str | None


class BudgetLimit(TypedDict):
    """One of the limits that all hold; `model` null is for all models together."""

    kind: LimitKind
    amount_usd: str
    time_zone: str
    week_start: Weekday | None
    model: str | None


class LimitStanding(TypedDict):
    """Where one limit stands in its current period; null where it has no periods."""

    kind: LimitKind
    model: str | None
    period_start: str | None
    period_end: str | None
    spent_usd: str
    reserved_usd: str
    left_usd: str


class BalanceFields(TypedDict):
    """`period_start`, `spent_usd` and `reserved_usd` are those of the only limit; where there are several, or none, of
    all time. `left_usd` is what a request to any model may cost; null where no limit is for all models. `limits` are in
    the order in which they were given."""

    period_start: str | None
    spent_usd: str
    reserved_usd: str
    left_usd: str | None
    spent_total_usd: str
    limits: list[LimitStanding]


class AccountFields(TypedDict):
    object: Literal["account"]
    id: int
    name: str
    limit: SpendingLimit | None
    limits: list[BudgetLimit]
    balance: BalanceFields
    created_at: str
    suspended_at: str | None
    weight: int


class KeyTermsFields(TypedDict):
    """null is no limit of the key's own."""

    limit: SpendingLimit | None
    limits: list[BudgetLimit]
    models: list[str] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None
    expires_at: str | None
    tier: Literal["default", "flex", "priority"] | None


class KeyFields(TypedDict):
    object: Literal["key"]
    id: int
    account_id: int
    name: str
    prefix: str
    role: Role
    terms: KeyTermsFields
    balance: BalanceFields
    created_at: str
    revoked_at: str | None
    previous_secret_until: str | None


class NewKeyFields(KeyFields):
    """`secret` is shown this once."""

    secret: str


class AdapterFields(TypedDict):
    """`price` as it was given; `account_id` is whose alone it is."""

    object: Literal["adapter"]
    id: int
    name: str
    base: str
    adapter: str
    price: dict[str, str]
    account_id: int | None
    description: str
    tags: list[str] | None
    created_at: str


class AdapterList(TypedDict):
    object: Literal["list"]
    data: list[AdapterFields]


class AuditRecordFields(TypedDict):
    object: Literal["audit_record"]
    id: int
    at: str
    actor: str
    action: str
    account_id: int | None
    key_id: int | None
    changes: Any


class AccountList(TypedDict):
    """`next` is where the next page starts, as the parameter `after`."""

    object: Literal["list"]
    data: list[AccountFields]
    has_more: bool
    next: str | None


class KeyList(TypedDict):
    """`next` is where the next page starts, as the parameter `after`."""

    object: Literal["list"]
    data: list[KeyFields]
    has_more: bool
    next: str | None


class AuditList(TypedDict):
    """`next` is where the next page starts, as the parameter `before`."""

    object: Literal["list"]
    data: list[AuditRecordFields]
    has_more: bool
    next: str | None


class UsageRow(TypedDict):
    """With the dimensions that were asked for."""

    day: NotRequired[str]
    hour: NotRequired[str]
    account_id: NotRequired[int]
    key_id: NotRequired[int]
    model: NotRequired[str]
    user: NotRequired[str]
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_usd: str


class UsageReport(TypedDict):
    object: Literal["usage"]
    data: list[UsageRow]
    total: UsageRow


class RequestUsage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class PriceTexts(TypedDict):
    input: str
    output: str
    cached_input: str


class RequestEntry(TypedDict):
    """One request as the ledger has it; while it runs, its tokens are at most a second old."""

    object: Literal["request"]
    id: str
    model: str
    route: str
    user: str | None
    key_id: int
    tier: Literal["default", "flex", "priority", "batch"]
    state: str
    outcome: str | None
    reason: str | None
    usage: RequestUsage
    cost_usd: str
    reserved_usd: str
    price_usd_per_million_tokens: PriceTexts
    started_at: str
    settled_at: str | None


class RateLimit(TypedDict):
    """`model` is null for a limit over all models."""

    kind: Literal["requests_per_minute", "tokens_per_minute", "concurrent_requests"]
    model: str | None
    limit: int
    remaining: int
    reset_seconds: float


class RateLimitList(TypedDict):
    object: Literal["list"]
    data: list[RateLimit]

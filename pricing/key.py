"""What a key is: a record without its secret, and its terms."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sqlalchemy import Row

from pricing.balance import NO_LIMIT, Limit, checked_limits, limits_of
from pricing.tier import Tier
from storage.errors import InvalidSetting

Role = Literal["user", "admin"]

_RATE_MAX: Final = 2**53
WEIGHT: Final = 100
"""An account's share of an engine that many want, beside the others': 200 gets twice as many tokens."""
WEIGHT_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key may do. `models` None means all; the others None mean no limit. `expires_at` in milliseconds since
    1970 UTC. `tier` is what its requests get that ask for none. Raises InvalidSetting for what can't be."""

    limits: tuple[Limit, ...] = ()
    models: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    expires_at: int | None = None
    tier: Tier | None = None

    def __post_init__(self) -> None:
        if self.tier is Tier.BATCH:
            raise InvalidSetting("A key's tier is default, flex or priority; batches have one of their own.")
        object.__setattr__(self, "limits", checked_limits(self.limits, prepaid=False))
        for name in ("requests_per_minute", "tokens_per_minute", "concurrent_requests"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _RATE_MAX:
                raise InvalidSetting(f"{name} is {value}; it must be from 0 to {_RATE_MAX}, or none for no limit.")

    @property
    def limit(self) -> Limit:
        """The only limit; NO_LIMIT where there is none, or several."""
        return self.limits[0] if len(self.limits) == 1 else NO_LIMIT


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its secret. `prefix` is the start of the secret, to recognise it by.

    `previous_until`: until when the secret before the last rotation works; None if there is none. `weight` is its
    account's share of an engine that many want.
    """

    id: int
    account_id: int
    name: str
    prefix: str
    role: Role
    terms: KeyTerms
    created_at: int
    revoked_at: int | None = None
    previous_until: int | None = None
    weight: int = WEIGHT

    def allows(self, model: str) -> bool:
        """Whether this key may use the model."""
        return self.terms.models is None or model in self.terms.models


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its secret, which is shown this once and stored as a hash only."""

    key: Key
    secret: str = field(repr=False)


def key_of(row: Row[Any]) -> Key:
    """The key in a row of `keys`."""
    terms = KeyTerms(
        limits=limits_of(row.limits),
        models=None if row.models is None else frozenset(json.loads(row.models)),
        requests_per_minute=row.requests_per_minute,
        tokens_per_minute=row.tokens_per_minute,
        concurrent_requests=row.concurrent_requests,
        expires_at=row.expires_at,
        tier=None if row.tier is None else Tier(row.tier),
    )
    return Key(
        row.id,
        row.account_id,
        row.name,
        row.prefix,
        row.role,
        terms,
        row.created_at,
        row.revoked_at,
        row.previous_until,
    )

"""Keys: what a client shows. A key belongs to one account and may have limits of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pricing.balance import NO_LIMIT, Balance, Limit
from pricing.clock import Clock, system_clock
from pricing.database import Database

Role = Literal["user", "admin"]


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key may do. `models` None means all; the others None mean no limit. `expires_at` in milliseconds."""

    limit: Limit = NO_LIMIT  # NONE, DAY, MONTH or TOTAL
    models: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its secret. `prefix` is the start of the secret, to recognise it by."""

    id: int
    account_id: int
    name: str
    prefix: str
    role: Role
    terms: KeyTerms
    created_at: int
    revoked_at: int | None = None
    previous_until: int | None = None
    """Until when the secret before the last rotation works; None if there is none."""

    def allows(self, model: str) -> bool:
        """Whether this key may use the model."""
        return self.terms.models is None or model in self.terms.models


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its secret, which is shown this once and stored as a hash only."""

    key: Key
    secret: str = field(repr=False)


class Keys:
    """All operations on keys. Each change writes an audit row, with its `actor`, in the same transaction."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        raise NotImplementedError

    async def create(
        self,
        account_id: int,
        name: str,
        terms: KeyTerms = KeyTerms(),
        *,
        actor: str,
        role: Role = "user",
        secret: str | None = None,
    ) -> NewKey:
        """Make a key with a new secret, or register `secret` (any string of 24 to 512 visible characters).

        Raises UnknownAccount, DuplicateName (name or secret taken), InvalidSetting.
        """
        raise NotImplementedError

    async def get(self, key_id: int) -> Key:
        """One key. Raises UnknownKey."""
        raise NotImplementedError

    async def list(
        self,
        *,
        account_id: int | None = None,
        prefix: str | None = None,
        include_revoked: bool = False,
        after: int = 0,
        count_max: int = 1000,
    ) -> list[Key]:
        """Keys in the order of their ids; `prefix` is the start of a secret, at most as long as `Key.prefix`."""
        raise NotImplementedError

    async def by_secret(self, secret: str) -> Key | None:
        """The key of this secret, whatever its state; for bootstrapping, not for authentication."""
        raise NotImplementedError

    async def balance(self, key_id: int) -> Balance:
        """Where it stands now. Raises UnknownKey."""
        raise NotImplementedError

    async def balances(self, key_ids: Sequence[int]) -> dict[int, Balance]:
        """Where several stand, by id."""
        raise NotImplementedError

    async def set_terms(self, key_id: int, terms: KeyTerms, *, actor: str) -> Key:
        """Replace all terms (use dataclasses.replace on the old ones). Raises UnknownKey, InvalidSetting."""
        raise NotImplementedError

    async def rename(self, key_id: int, name: str, *, actor: str) -> Key:
        """Raises UnknownKey, DuplicateName, InvalidSetting."""
        raise NotImplementedError

    async def rotate(self, key_id: int, *, grace_ms: int, actor: str) -> NewKey:
        """A new secret for the same key; the old one works for `grace_ms` more. One older still ends at once."""
        raise NotImplementedError

    async def revoke(self, key_id: int, *, actor: str) -> Key:
        """End the key for good, within 1 s on every replica. Revoking twice changes nothing."""
        raise NotImplementedError

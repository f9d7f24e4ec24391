"""Accounts: who pays. Each has a limit (or prepaid credit, or none) that bounds all its keys together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pricing.balance import NO_LIMIT, Balance, Limit
from pricing.clock import Clock, system_clock
from pricing.database import Database
from pricing.money import Picodollars


@dataclass(frozen=True, slots=True)
class Account:
    """One payer. Times are milliseconds since 1970 UTC."""

    id: int
    name: str
    limit: Limit
    created_at: int
    suspended_at: int | None


class Accounts:
    """All operations on accounts. Each change writes an audit row, with its `actor`, in the same transaction."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        raise NotImplementedError

    async def create(self, name: str, limit: Limit = NO_LIMIT, *, actor: str) -> Account:
        """Make an account. Raises DuplicateName, InvalidSetting."""
        raise NotImplementedError

    async def get(self, account_id: int) -> Account:
        """One account. Raises UnknownAccount."""
        raise NotImplementedError

    async def find(self, name: str) -> Account | None:
        """The account of this name."""
        raise NotImplementedError

    async def list(self, *, after: int = 0, count_max: int = 1000) -> list[Account]:
        """Accounts in the order of their ids, from the one after `after`."""
        raise NotImplementedError

    async def balance(self, account_id: int) -> Balance:
        """Where it stands now. Raises UnknownAccount."""
        raise NotImplementedError

    async def balances(self, account_ids: Sequence[int]) -> dict[int, Balance]:
        """Where several stand, by id."""
        raise NotImplementedError

    async def rename(self, account_id: int, name: str, *, actor: str) -> Account:
        """Raises UnknownAccount, DuplicateName, InvalidSetting."""
        raise NotImplementedError

    async def set_limit(self, account_id: int, limit: Limit, *, actor: str) -> Balance:
        """Replace the limit; what was spent in the new limit's period counts against it from now on.

        One that becomes PREPAID starts with `limit.amount` of credit and nothing spent. A limit below what is spent and
        reserved already stops new requests; running ones finish.
        """
        raise NotImplementedError

    async def add_credit(
        self, account_id: int, amount: Picodollars, *, actor: str, reference: str | None = None
    ) -> Balance:
        """Add credit to a prepaid account. The same `reference` (a payment's id) adds it once only.

        Raises InvalidSetting where the account isn't prepaid, InvalidAmount where the amount isn't positive.
        """
        raise NotImplementedError

    async def suspend(self, account_id: int, *, actor: str) -> Account:
        """Stop all its keys, within 1 s on every replica."""
        raise NotImplementedError

    async def resume(self, account_id: int, *, actor: str) -> Account:
        """Let its keys work again."""
        raise NotImplementedError

"""Questions to the ledger: what was spent, by whom, on what; and one request by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from pricing.cost import Tokens
from pricing.database import Database
from pricing.money import Picodollars

Dimension = Literal["day", "account", "key", "model"]
State = Literal["running", "settled", "interrupted", "void"]


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """One row of totals; the dimensions that were not asked for are None. `day` is "2026-11-20", UTC."""

    day: str | None
    account_id: int | None
    key_id: int | None
    model: str | None
    requests: int
    tokens: Tokens
    cost: Picodollars


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request. While it runs, `tokens` is the last checkpoint, `cost` what that would cost, `settled_at` None.
    Times in milliseconds since 1970 UTC."""

    request_id: str
    account_id: int
    key_id: int
    model: str
    route: str
    user: str | None
    state: State
    outcome: str | None
    tokens: Tokens
    reserved: Picodollars
    cost: Picodollars
    started_at: int
    reserved_at: int
    settled_at: int | None


class Usage:
    """Queries. Totals come from the daily roll-up, so they cover all time whatever the retention of entries."""

    def __init__(self, database: Database) -> None:
        raise NotImplementedError

    async def totals(
        self,
        by: Sequence[Dimension] = (),
        *,
        since: date | None = None,
        until: date | None = None,
        account_id: int | None = None,
        key_id: int | None = None,
        model: str | None = None,
    ) -> list[UsageTotal]:
        """Sums by any of day, account, key and model, ordered by them; `since` and `until` are UTC days, inclusive.

        A request belongs to the day of its reservation. With an empty `by` there is exactly one row.
        """
        raise NotImplementedError

    async def request(
        self, request_id: str, *, account_id: int | None = None, key_id: int | None = None
    ) -> RequestRecord | None:
        """One request, running or done; None if there is none, or it is not of this account or key."""
        raise NotImplementedError

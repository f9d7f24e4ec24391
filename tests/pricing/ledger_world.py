"""What the ledger's tests share: a clock to turn by hand, quick settings, and one place to make requests."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from sqlalchemy import func, select

from pricing import tables
from pricing.accounts import Account, Accounts
from pricing.balance import NO_LIMIT, Limit
from pricing.cost import Tokens
from pricing.keys import Key, Keys, KeyTerms, NewKey
from pricing.ledger import Ledger, LedgerSettings
from pricing.money import Picodollars
from pricing.price import Price
from pricing.reservation import ReserveRequest
from storage.database import Database

NOON = 1_795_176_000_000  # 2026-11-20T12:00:00Z
HOUR = 3_600_000
DAY = 24 * HOUR

# One token of either kind costs one micro-dollar, so that amounts in tests are easy to read.
PRICE = Price.per_million(input="1", output="1", cached_input="0.5")
TOKEN = PRICE.input


class HandClock:
    """A clock that moves when told."""

    def __init__(self, at: int = NOON) -> None:
        self.at = at

    def __call__(self) -> int:
        return self.at


def quick(**changes: object) -> LedgerSettings:
    settings = LedgerSettings(
        lease_ms=400,
        heartbeat_ms=60,
        checkpoint_ms=20,
        commit_interval_ms=0,
        settle_linger_ms=1,
        retry_ms_max=100,
        close_ms_max=3_000,
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


@dataclass
class World:
    """One database, with stores and a clock, and short ways to do what tests do often."""

    database: Database
    url: str
    clock: HandClock = field(default_factory=HandClock)
    ids: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.accounts = Accounts(self.database, self.clock)
        self.keys = Keys(self.database, self.clock)

    async def account(self, *limits: Limit) -> Account:
        return await self.accounts.create(f"account {next(self.ids)}", *limits, actor="test")

    async def key(self, limit: Limit = NO_LIMIT, terms: KeyTerms | None = None) -> NewKey:
        """A key of a new account that has this limit."""
        account = await self.account(limit)
        return await self.keys.create(account.id, "key", terms or KeyTerms(), actor="test")

    @asynccontextmanager
    async def ledger(self, **changes: object) -> AsyncIterator[Ledger]:
        ledger = await Ledger.open(self.database, quick(**{"clock": self.clock, **changes}))
        try:
            yield ledger
        finally:
            await ledger.close()

    def request(self, key: Key, tokens: int, request_id: str | None = None, **changes: object) -> ReserveRequest:
        """A request whose worst case is `tokens` tokens, one of them in the prompt."""
        request = ReserveRequest(
            request_id=f"request-{next(self.ids)}" if request_id is None else request_id,
            key=key,
            model="demo",
            price=PRICE,
            prompt_tokens=min(1, tokens),
            completion_tokens_max=max(0, tokens - 1),
            route="chat",
            started_at=self.clock(),
        )
        return replace(request, **changes)  # type: ignore[arg-type]

    async def entry_sums(self, key_id: int) -> tuple[int, Picodollars]:
        """How many entries a key has, and what they cost together."""
        table = tables.entries
        query = select(func.count(), func.coalesce(func.sum(table.c.cost), 0)).where(table.c.key_id == key_id)
        async with self.database.read() as connection:
            count, total = (await connection.execute(query)).one()
        return count, Picodollars(int(total))

    async def open_reservations(self) -> int:
        async with self.database.read() as connection:
            return (await connection.execute(select(func.count()).select_from(tables.reservations))).scalar_one()


def used(completion: int, prompt: int = 1, cached: int = 0) -> Tokens:
    return Tokens(prompt, cached, completion)

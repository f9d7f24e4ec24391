"""The ledger against a model of it: any order of reservations, settlements, crashes, replays, changes of limits and
keys, and days that pass. After every step the database must say what the model says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select

from pricing import tables
from pricing.balance import Balance, Limit, LimitKind
from pricing.cost import NO_TOKENS, Tokens
from pricing.directory import DirectorySettings, KeyDirectory
from pricing.errors import DuplicateRequest, InsufficientFunds, Overtaken
from pricing.key import Key, KeyTerms
from pricing.ledger import Ledger
from pricing.money import Picodollars
from pricing.reservation import Outcome, Reservation
from storage.database import Database
from tests.pricing.ledger_world import DAY, HOUR, TOKEN, HandClock, World, quick, used

T = TypeVar("T")
LEASE = 600_000
STEPS, EXAMPLES = 25, 12

key_limits = st.one_of(
    st.just(Limit(LimitKind.NONE)),
    st.builds(
        lambda kind, tokens: Limit(kind, Picodollars(tokens * TOKEN)),
        st.sampled_from([LimitKind.DAY, LimitKind.MONTH, LimitKind.TOTAL]),
        st.integers(0, 60),
    ),
)
account_limits = key_limits | st.integers(0, 60).map(
    lambda tokens: Limit(LimitKind.PREPAID, Picodollars(tokens * TOKEN))
)


@dataclass(eq=False)
class Party:
    """The model of an account or a key: a limit, and since when it counts."""

    limit: Limit
    prepaid_since: int = 0

    def start(self, now: int) -> int:
        return self.prepaid_since if self.limit.kind is LimitKind.PREPAID else self.limit.period_start(now)


@dataclass(eq=False)
class Request:
    """The model of a request."""

    id: str
    key: Key
    amount: int
    reserved_at: int
    ledger: Ledger
    reservation: Reservation
    checkpoint: Tokens = NO_TOKENS
    latest: Tokens = NO_TOKENS
    cost: int | None = None  # None while it runs
    state: str = "running"


@dataclass
class Model:
    parties: dict[tuple[str, int], Party] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def of(self, scope: str, row_id: int) -> list[Request]:
        return [one for one in self.requests if (one.key.account_id if scope == "account" else one.key.id) == row_id]

    def balance(self, scope: str, row_id: int, now: int) -> tuple[int, int, int]:
        """Spent and reserved in the period, and spent ever."""
        start, all_of_it = self.parties[scope, row_id].start(now), self.of(scope, row_id)
        inside = [one for one in all_of_it if one.reserved_at >= start]
        return (
            sum(one.cost for one in inside if one.cost is not None),
            sum(one.amount for one in inside if one.cost is None),
            sum(one.cost for one in all_of_it if one.cost is not None),
        )

    def left(self, scope: str, row_id: int, now: int) -> int | None:
        limit = self.parties[scope, row_id].limit
        spent, reserved, _ = self.balance(scope, row_id, now)
        return None if limit.kind is LimitKind.NONE else max(0, limit.amount - spent - reserved)


class LedgerMachine(RuleBasedStateMachine):
    """Two processes on one database. `make_url` gives a fresh one for each run."""

    make_url: Callable[[], str]
    requests = Bundle("requests")

    @initialize(
        limits=st.lists(account_limits, min_size=2, max_size=2), terms=st.lists(key_limits, min_size=3, max_size=3)
    )
    def start(self, limits: list[Limit], terms: list[Limit]) -> None:
        url = type(self).make_url()
        self.runner = asyncio.Runner()
        self.lease_clock = HandClock()
        self.model = Model()
        self.waited = 0
        self.secrets: dict[int, str] = {}
        self.run(self.open(url, limits, terms))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def open(self, url: str, limits: list[Limit], terms: list[Limit]) -> None:
        self.world = World(await Database.open(url), url)
        self.keys: list[Key] = []
        accounts = [await self.world.account(limit) for limit in limits]
        for account in accounts:
            self.model.parties["account", account.id] = Party(account.limit)
        for number, limit in enumerate(terms):
            account = accounts[number % 2]
            new = await self.world.keys.create(account.id, f"key {number}", KeyTerms((limit,)), actor="test")
            self.model.parties["key", new.key.id] = Party(limit)
            self.keys.append(new.key)
            self.secrets[new.key.id] = new.secret
        self.ledgers = [await self.open_ledger(), await self.open_ledger()]
        directory_settings = DirectorySettings(refresh_ms=3_600_000, clock=self.world.clock)
        self.directory = await KeyDirectory.open(self.world.database, directory_settings)

    async def open_ledger(self) -> Ledger:
        return await Ledger.open(
            self.world.database,
            quick(
                clock=self.world.clock,
                monotonic=self.lease_clock,
                lease_ms=LEASE,
                heartbeat_ms=LEASE // 3,
                checkpoint_ms=1_000,
                settle_linger_ms=0,
            ),
        )

    async def reserve_all(self, process: int, key: Key, counts: list[int]) -> list[Reservation | InsufficientFunds]:
        """Reserve for all in one go, so that they share a group commit."""
        claims: list[Reservation | InsufficientFunds] = []
        for count in counts:
            try:
                claims.append(self.ledgers[process].reserve(self.world.request(key, count)))
            except InsufficientFunds as refusal:
                claims.append(refusal)
        for place, claim in enumerate(claims):
            if isinstance(claim, Reservation):
                try:
                    await claim.stands()
                except InsufficientFunds as refusal:
                    claims[place] = refusal
        return claims

    @rule(
        target=requests,
        number=st.integers(0, 2),
        process=st.integers(0, 1),
        counts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    )
    def reserve(self, number: int, process: int, counts: list[int]) -> Any:
        """Admitted in their order, each if it fits into what is left of the key and of the account."""
        key, now = self.keys[number], self.world.clock()
        parties = [("key", key.id), ("account", key.account_id)]
        admitted = []
        for count, claim in zip(counts, self.run(self.reserve_all(process, key, counts)), strict=True):
            amount = count * TOKEN
            lefts = [self.model.left(*party, now) for party in parties]
            fits = all(left is None or amount <= left for left in lefts)
            assert isinstance(claim, Reservation) == fits, (claim, lefts, amount)
            if isinstance(claim, Reservation):
                reserved_at = max(now, *(self.model.parties[party].start(now) for party in parties))
                admitted.append(Request(claim.request_id, key, amount, reserved_at, self.ledgers[process], claim))
                self.model.requests.append(admitted[-1])
        return multiple(*admitted)

    @rule(request=requests, part=st.integers(0, 100), outcome=st.sampled_from(["finished", "client_gone", "void"]))
    def settle(self, request: Request, part: int, outcome: str) -> None:
        """At any time, and as often as one likes: the first counts."""
        tokens = used(part * (request.amount // TOKEN - 1) // 100)
        if outcome == "void":
            request.reservation.void("test")
        else:
            request.reservation.settle(tokens, Outcome(outcome))
        if request.cost is None:
            request.state = "void" if outcome == "void" else "settled"
            request.cost = 0 if outcome == "void" else (tokens.prompt + tokens.completion) * TOKEN
        if request.ledger in self.ledgers:
            self.run(request.ledger.flush())

    @rule(request=requests, part=st.integers(0, 100), checkpoint=st.booleans())
    def observe(self, request: Request, part: int, checkpoint: bool) -> None:
        request.latest = used(part * (request.amount // TOKEN - 1) // 100)
        request.reservation.observe(request.latest)
        if checkpoint and request.ledger in self.ledgers:
            self.run(request.ledger.checkpoint())
            for one in self.model.requests:
                if one.ledger is request.ledger:
                    one.checkpoint = one.latest

    @rule(request=requests, process=st.integers(0, 1))
    def replay(self, request: Request, process: int) -> None:
        """An id that was used is refused, wherever and however its request ended."""
        again = self.world.request(request.key, 1, request.id)

        async def attempt() -> None:
            await self.ledgers[process].reserve(again).stands()

        try:
            self.run(attempt())
        except (DuplicateRequest, InsufficientFunds):
            return
        raise AssertionError("a request id was used twice")

    @rule(process=st.integers(0, 1))
    def crash(self, process: int) -> None:
        """A process dies; the other one settles for it once its lease is over; a new one starts."""
        dead, survivor = self.ledgers[process], self.ledgers[1 - process]

        async def die() -> int:
            await dead.abandon()
            settled = await self.outlive(survivor)
            self.ledgers[process] = await self.open_ledger()
            return settled

        lost = self.lost(dead)
        assert self.run(die()) == len(lost)

    @rule(process=st.integers(0, 1))
    def stand_still(self, process: int) -> None:
        """A process stands still for longer than its lease; the other one settles for it; it goes on, and learns it."""
        slow, survivor = self.ledgers[process], self.ledgers[1 - process]
        lost = self.lost(slow)
        assert self.run(self.outlive(survivor)) == len(lost)
        for one in lost:
            with contextlib.suppress(Overtaken):
                self.run(one.reservation.confirm())
                raise AssertionError("a request that was settled was confirmed")

    async def outlive(self, survivor: Ledger) -> int:
        """More than a lease passes on its clock; a process without a row gets one first, and so lives for longer."""
        settled = await survivor.recover()
        for _ in range(6):
            self.lease_clock.at += LEASE // 4
            settled += await survivor.recover()
        return settled

    def lost(self, dead: Ledger) -> list[Request]:
        """What another process settles for this one."""
        lost = [one for one in self.model.requests if one.ledger is dead and one.cost is None]
        for one in lost:
            one.state = "interrupted"
            one.cost = (one.checkpoint.prompt + one.checkpoint.completion) * TOKEN
        return lost

    @rule(milliseconds=st.sampled_from([1_000, HOUR, 9 * HOUR, DAY - 1]))
    def wait(self, milliseconds: int) -> None:
        # Less than two days in all, since a request id may be used again after that.
        if self.waited + milliseconds < 2 * DAY - HOUR:
            self.waited += milliseconds
            self.world.clock.at += milliseconds

    @rule(number=st.integers(0, 1), limit=account_limits)
    def limit_account(self, number: int, limit: Limit) -> None:
        account_id = self.keys[number].account_id
        party = self.model.parties["account", account_id]
        if limit.kind is LimitKind.PREPAID and party.limit.kind is not LimitKind.PREPAID:
            running = [one.reserved_at for one in self.model.of("account", account_id) if one.cost is None]
            party.prepaid_since = max([self.world.clock(), *running]) + 1
        party.limit = limit
        self.run(self.world.accounts.set_limit(account_id, limit, actor="test"))
        self.world.clock.at += 501  # what the ledgers know is too old now to refuse by

    @rule(number=st.integers(0, 1), tokens=st.integers(1, 30))
    def add_credit(self, number: int, tokens: int) -> None:
        account_id = self.keys[number].account_id
        party = self.model.parties["account", account_id]
        if party.limit.kind is LimitKind.PREPAID:
            amount = Picodollars(tokens * TOKEN)
            party.limit = Limit(LimitKind.PREPAID, Picodollars(party.limit.amount + amount))
            self.run(self.world.accounts.add_credit(account_id, amount, actor="test"))
            self.world.clock.at += 501

    @rule(number=st.integers(0, 2), limit=key_limits)
    def limit_key(self, number: int, limit: Limit) -> None:
        key = self.keys[number]
        self.model.parties["key", key.id].limit = limit
        self.run(self.world.keys.set_terms(key.id, KeyTerms((limit,)), actor="test"))
        self.world.clock.at += 501

    @rule(number=st.integers(0, 2))
    def rotate_key(self, number: int) -> None:
        key_id = self.keys[number].id

        async def rotate() -> None:
            new = await self.world.keys.rotate(key_id, grace_ms=0, actor="test")
            await self.directory.refresh()
            assert self.directory.find(self.secrets[key_id]) is None
            assert self.directory.find(new.secret) == new.key
            self.secrets[key_id] = new.secret

        self.run(rotate())

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        if hasattr(self, "world"):
            self.run(self.compare())

    async def compare(self) -> None:
        now = self.world.clock()
        for (scope, row_id), party in self.model.parties.items():
            store = self.world.accounts if scope == "account" else self.world.keys
            balance: Balance = await store.balance(row_id)
            found = (balance.spent, balance.reserved, balance.spent_total)
            assert found == self.model.balance(scope, row_id, now), (scope, party)
            assert balance.limit == party.limit
        ended = {one.id: (one.state, one.cost) for one in self.model.requests if one.cost is not None}
        entries, daily = tables.entries.c, tables.usage.c
        async with self.world.database.read() as connection:
            rows = (await connection.execute(select(entries.request_id, entries.state, entries.cost))).all()
            total, count = (
                await connection.execute(
                    select(func.sum(daily.cost), func.sum(daily.requests)).where(daily.grain == tables.QUARTER)
                )
            ).one()
        assert len(rows) == len(ended)
        assert {row.request_id: (row.state, row.cost) for row in rows} == ended
        assert int(total or 0) == sum(cost for _, cost in ended.values() if cost)
        assert int(count or 0) == sum(state != "void" for state, _ in ended.values())

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run(self.close())
            self.runner.close()

    async def close(self) -> None:
        for ledger in self.ledgers:
            await ledger.close()
        await self.directory.close()
        await self.world.database.close()


def test_no_order_of_events_breaks_an_invariant(fresh_url: Callable[[], str]) -> None:
    class Machine(LedgerMachine):
        make_url = staticmethod(fresh_url)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # shrinking would take minutes; a failure prints its steps as they are
            suppress_health_check=list(HealthCheck),
        ),
    )

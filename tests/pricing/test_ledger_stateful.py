"""The ledger against a model of it: any order of reservations, settlements, crashes, replays, changes of limits and
keys, and days that pass. After every step the database must say what the model says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
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
from sqlalchemy import bindparam, func, select

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

ZONES = ("UTC", "Europe/Berlin", "America/Havana", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia")
MODELS = ("demo", "other")
# Just before clocks are put back in Europe, put forward there, put back in Cuba (at midnight), a leap day, a new year.
STARTS = tuple(
    int(datetime.fromisoformat(text).timestamp() * 1000)
    for text in (
        "2026-10-24T20:00Z",
        "2027-03-27T20:00Z",
        "2026-10-31T20:00Z",
        "2028-02-28T16:00Z",
        "2026-12-31T12:00Z",
        "2026-11-20T12:00Z",
    )
)

amounts = st.integers(0, 60).map(lambda tokens: Picodollars(tokens * TOKEN))
models = st.sampled_from([None, *MODELS])
zones = st.sampled_from(ZONES)
limit = st.one_of(
    st.builds(
        Limit,
        st.sampled_from([LimitKind.HOUR, LimitKind.DAY, LimitKind.MONTH]),
        amounts,
        zone=zones,
        model=models,
    ),
    st.builds(
        Limit,
        st.just(LimitKind.WEEK),
        amounts,
        zone=zones,
        week_start=st.sampled_from(["monday", "saturday", "sunday"]),
        model=models,
    ),
    st.builds(Limit, st.just(LimitKind.TOTAL), amounts, model=models),
)
key_limits = st.lists(limit, max_size=8, unique_by=lambda one: one.identity).map(tuple)
account_limits = st.builds(
    lambda credit, others: (*(() if credit is None else (Limit(LimitKind.PREPAID, credit),)), *others),
    st.none() | amounts,
    key_limits,
)


@dataclass(eq=False)
class Party:
    """The model of an account or a key: limits, and since when its credit counts."""

    limits: tuple[Limit, ...]
    prepaid_since: int = 0

    def start(self, limit: Limit, now: int) -> int:
        return self.prepaid_since if limit.kind is LimitKind.PREPAID else limit.period_start(now)

    @property
    def is_prepaid(self) -> bool:
        return any(limit.kind is LimitKind.PREPAID for limit in self.limits)


@dataclass(eq=False)
class Request:
    """The model of a request."""

    id: str
    key: Key
    model: str
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

    def standing(self, scope: str, row_id: int, limit: Limit, now: int) -> tuple[int, int]:
        """Spent and reserved in a limit's period."""
        start = self.parties[scope, row_id].start(limit, now)
        inside = [one for one in self.of(scope, row_id) if one.reserved_at >= start and limit.applies(one.model)]
        return (
            sum(one.cost for one in inside if one.cost is not None),
            sum(one.amount for one in inside if one.cost is None),
        )

    def fits(self, scope: str, row_id: int, amount: int, model: str, now: int) -> bool:
        return all(
            amount <= limit.amount - sum(self.standing(scope, row_id, limit, now))
            for limit in self.parties[scope, row_id].limits
            if limit.applies(model)
        )


class LedgerMachine(RuleBasedStateMachine):
    """Two processes on one database. `make_url` gives a fresh one for each run."""

    make_url: Callable[[], str]
    requests = Bundle("requests")

    @initialize(
        limits=st.lists(account_limits, min_size=2, max_size=2),
        terms=st.lists(key_limits, min_size=3, max_size=3),
        at=st.sampled_from(STARTS),
    )
    def start(self, limits: list[tuple[Limit, ...]], terms: list[tuple[Limit, ...]], at: int) -> None:
        url = type(self).make_url()
        self.runner = asyncio.Runner()
        self.lease_clock = HandClock()
        self.model = Model()
        self.waited = 0
        self.secrets: dict[int, str] = {}
        self.run(self.open(url, limits, terms, at))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def open(self, url: str, limits: list[tuple[Limit, ...]], terms: list[tuple[Limit, ...]], at: int) -> None:
        self.world = World(await Database.open(url), url, HandClock(at))
        self.keys: list[Key] = []
        accounts = [await self.world.account(*some) for some in limits]
        for account, some in zip(accounts, limits, strict=True):
            self.model.parties["account", account.id] = Party(some)
        for number, some in enumerate(terms):
            account = accounts[number % 2]
            new = await self.world.keys.create(account.id, f"key {number}", KeyTerms(some), actor="test")
            self.model.parties["key", new.key.id] = Party(some)
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

    async def reserve_all(
        self, process: int, key: Key, model: str, counts: list[int]
    ) -> list[Reservation | InsufficientFunds]:
        """Reserve for all in one go, so that they share a group commit."""
        claims: list[Reservation | InsufficientFunds] = []
        for count in counts:
            try:
                claims.append(self.ledgers[process].reserve(self.world.request(key, count, model=model)))
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
        model=st.sampled_from(MODELS),
        counts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    )
    def reserve(self, number: int, process: int, model: str, counts: list[int]) -> Any:
        """Admitted in their order, each if it fits into what is left of every limit of the key and of the account."""
        key, now = self.keys[number], self.world.clock()
        parties = [("key", key.id), ("account", key.account_id)]
        admitted = []
        for count, claim in zip(counts, self.run(self.reserve_all(process, key, model, counts)), strict=True):
            amount = count * TOKEN
            fits = all(self.model.fits(*party, amount, model, now) for party in parties)
            assert isinstance(claim, Reservation) == fits, (claim, amount)
            if isinstance(claim, Reservation):
                held = [self.model.parties[party] for party in parties]
                reserved_at = max(now, *(party.prepaid_since for party in held if party.is_prepaid), now)
                ledger = self.ledgers[process]
                admitted.append(Request(claim.request_id, key, model, amount, reserved_at, ledger, claim))
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

    @rule(number=st.integers(0, 1), limits=account_limits)
    def limit_account(self, number: int, limits: tuple[Limit, ...]) -> None:
        account_id = self.keys[number].account_id
        party = self.model.parties["account", account_id]
        was_prepaid, party.limits = party.is_prepaid, limits
        if party.is_prepaid and not was_prepaid:
            running = [one.reserved_at for one in self.model.of("account", account_id) if one.cost is None]
            party.prepaid_since = max([self.world.clock(), *running]) + 1
        self.run(self.world.accounts.set_limits(account_id, limits, actor="test"))
        self.world.clock.at += 501  # what the ledgers know is too old now to refuse by

    @rule(number=st.integers(0, 1), tokens=st.integers(1, 30))
    def add_credit(self, number: int, tokens: int) -> None:
        account_id = self.keys[number].account_id
        party = self.model.parties["account", account_id]
        if party.is_prepaid:
            amount = Picodollars(tokens * TOKEN)
            credit, *others = party.limits
            party.limits = (Limit(LimitKind.PREPAID, Picodollars(credit.amount + amount)), *others)
            self.run(self.world.accounts.add_credit(account_id, amount, actor="test"))
            self.world.clock.at += 501

    @rule(number=st.integers(0, 2), limits=key_limits)
    def limit_key(self, number: int, limits: tuple[Limit, ...]) -> None:
        key = self.keys[number]
        self.model.parties["key", key.id].limits = limits
        self.run(self.world.keys.set_terms(key.id, KeyTerms(limits), actor="test"))
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
            every = self.model.of(scope, row_id)
            assert balance.spent_total == sum(one.cost for one in every if one.cost is not None)
            assert balance.reserved_total == sum(one.amount for one in every if one.cost is None)
            assert tuple(one.limit for one in balance.limits) == party.limits
            for one in balance.limits:
                assert (one.spent, one.reserved) == self.model.standing(scope, row_id, one.limit, now), (scope, one)
        ended = {one.id: (one.state, one.cost) for one in self.model.requests if one.cost is not None}
        entries, daily = tables.entries.c, tables.usage.c
        async with self.world.database.read() as connection:
            rows = (await connection.execute(select(entries.request_id, entries.state, entries.cost))).all()
            sums = select(func.sum(daily.cost), func.sum(daily.requests)).where(daily.grain == bindparam("grain"))
            grains = (tables.DAY, tables.QUARTER)
            rolled = [(await connection.execute(sums, {"grain": grain})).one() for grain in grains]
        assert len(rows) == len(ended)
        assert {row.request_id: (row.state, row.cost) for row in rows} == ended
        for total, count in rolled:
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

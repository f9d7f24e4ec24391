"""Reserve, settle, void: exact, exactly once, never beyond a limit. On SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pricing.balance import NO_LIMIT, Limit, LimitKind
from pricing.clock import month_start
from pricing.cost import Tokens
from pricing.errors import DuplicateRequest, InsufficientFunds, UnknownKey
from pricing.key import Key, KeyTerms
from pricing.ledger import Ledger
from pricing.money import InvalidAmount, Picodollars
from pricing.reservation import Outcome, Reservation
from pricing.usage import Usage
from storage.errors import InvalidSetting, LedgerUnavailable
from tests.pricing.ledger_world import DAY, HOUR, NOON, PRICE, TOKEN, World, quick, used


def limit(tokens: int, kind: LimitKind = LimitKind.TOTAL) -> Limit:
    return Limit(kind, Picodollars(tokens * TOKEN))


async def stood(world: World, ledger: Ledger, key: Key, tokens: int, request_id: str | None = None) -> Reservation:
    reservation = ledger.reserve(world.request(key, tokens, request_id))
    await reservation.stands()
    return reservation


async def test_a_request_is_charged_for_its_tokens_and_the_rest_released(world: World) -> None:
    key = (await world.key(limit(1000))).key
    async with world.ledger() as ledger:
        reservation = await stood(world, ledger, key, 500)
        assert reservation.amount == 500 * TOKEN
        assert (await world.accounts.balance(key.account_id)).left == 500 * TOKEN
        assert reservation.settle(Tokens(1, 1, 10), Outcome.FINISHED) == 10 * TOKEN + TOKEN // 2
        await ledger.flush()
        for balance in (await world.accounts.balance(key.account_id), await world.keys.balance(key.id)):
            assert (balance.spent, balance.reserved) == (10 * TOKEN + TOKEN // 2, 0)
        assert await world.entry_sums(key.id) == (1, 10 * TOKEN + TOKEN // 2)
        assert (ledger.unsettled, ledger.running) == (0, 0)


@pytest.mark.parametrize("outcome", [one for one in Outcome if one.state == "settled"])
async def test_every_way_out_is_recorded(world: World, outcome: Outcome) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger:
        reservation = await stood(world, ledger, key, 10, "the-request")
        world.clock.at += 5
        reservation.settle(used(3), outcome)
        await ledger.flush()
        record = await Usage(world.database).request("the-request")
        assert record is not None
        assert (record.state, record.outcome, record.tokens, record.cost) == ("settled", outcome, used(3), 4 * TOKEN)
        assert (record.started_at, record.reserved_at, record.settled_at) == (NOON, NOON, NOON + 5)
        assert (record.price, record.reserved) == (PRICE, 10 * TOKEN)


async def test_a_void_request_costs_nothing_and_is_on_record(world: World) -> None:
    key = (await world.key(limit(10))).key
    async with world.ledger() as ledger:
        reservation = await stood(world, ledger, key, 10, "the-request")
        reservation.void("the engine was full")
        assert reservation.settle(used(9), Outcome.FINISHED) == 0  # too late
        await stood(world, ledger, key, 10)
        record = await Usage(world.database).request("the-request")
        assert record is not None
        assert (record.state, record.reason, record.cost) == ("void", "the engine was full", 0)
        assert [total.requests for total in await Usage(world.database).totals()] == [0]


async def test_settling_twice_charges_once(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger:
        reservation = await stood(world, ledger, key, 10)
        assert reservation.settle(used(3), Outcome.FINISHED) == 4 * TOKEN
        assert reservation.settle(used(9), Outcome.CLIENT_GONE) == 4 * TOKEN
        reservation.void("too late")
        await ledger.flush()
        assert reservation.settle(used(9), Outcome.CLIENT_GONE) == 4 * TOKEN
        await ledger.flush()
        assert await world.entry_sums(key.id) == (1, 4 * TOKEN)


async def test_a_charge_never_exceeds_its_reservation(world: World, caplog: pytest.LogCaptureFixture) -> None:
    key = (await world.key(limit(10))).key
    async with world.ledger() as ledger:
        reservation = await stood(world, ledger, key, 10)
        with caplog.at_level(logging.ERROR):
            assert reservation.settle(used(1_000), Outcome.FINISHED) == 10 * TOKEN
        assert "more than was reserved" in caplog.text
        await ledger.flush()
        assert (await world.accounts.balance(key.account_id)).spent == 10 * TOKEN


@pytest.mark.parametrize(("account_tokens", "key_tokens", "scope"), [(10, 100, "account"), (100, 10, "key")])
async def test_both_limits_bind_and_the_error_says_which(
    world: World, account_tokens: int, key_tokens: int, scope: str
) -> None:
    key = (await world.key(limit(account_tokens), KeyTerms((limit(key_tokens),)))).key
    async with world.ledger() as ledger:
        await stood(world, ledger, key, 7)
        with pytest.raises(InsufficientFunds, match=f"the {scope} has ") as caught:
            await stood(world, ledger, key, 4)
        assert (caught.value.needed, caught.value.left, caught.value.scope) == (4 * TOKEN, 3 * TOKEN, scope)
        await stood(world, ledger, key, 3)


async def test_who_is_known_to_have_no_money_is_refused_at_once(world: World) -> None:
    key = (await world.key(limit(10))).key
    async with world.ledger() as ledger:
        first = ledger.reserve(world.request(key, 8))
        assert not first.likely  # nothing is known of this key yet
        await first.stands()
        with pytest.raises(InsufficientFunds):
            ledger.reserve(world.request(key, 3))
        assert ledger.reserve(world.request(key, 2)).likely
        first.settle(used(2), Outcome.FINISHED)  # not written yet, and known all the same
        assert ledger.reserve(world.request(key, 5)).likely


async def test_added_credit_counts_even_for_who_was_refused(world: World) -> None:
    key = (await world.key(limit(10, LimitKind.PREPAID))).key
    async with world.ledger() as ledger:
        await stood(world, ledger, key, 10)
        with pytest.raises(InsufficientFunds):
            ledger.reserve(world.request(key, 1))
        await world.accounts.add_credit(key.account_id, TOKEN, actor="shop")
        world.clock.at += 501  # what is known is too old now to refuse by
        reservation = ledger.reserve(world.request(key, 1))
        assert not reservation.likely
        await reservation.stands()


@pytest.mark.parametrize("kind", [LimitKind.DAY, LimitKind.MONTH])
async def test_a_period_ends_in_utc_and_a_request_counts_where_it_was_reserved(world: World, kind: LimitKind) -> None:
    end = NOON + 12 * HOUR if kind is LimitKind.DAY else month_start(NOON + 20 * DAY)
    world.clock.at = end - 1
    key = (await world.key(limit(10, kind), KeyTerms((limit(15),)))).key
    async with world.ledger() as ledger:
        late = await stood(world, ledger, key, 10)
        with pytest.raises(InsufficientFunds):
            await stood(world, ledger, key, 1)
        world.clock.at = end
        await stood(world, ledger, key, 5)
        late.settle(used(9), Outcome.FINISHED)
        await ledger.flush()
        balance = await world.accounts.balance(key.account_id)
        assert (balance.spent, balance.reserved, balance.spent_total) == (0, 5 * TOKEN, 10 * TOKEN)
        assert (await world.keys.balance(key.id)).left == 0  # the key's limit is for all time
        totals = await Usage(world.database).totals(["day"])
        assert [(one.day, one.requests) for one in totals] == [
            ("2026-11-20" if kind is LimitKind.DAY else "2026-11-30", 1)
        ]


async def test_a_late_clock_does_not_reopen_a_period(world: World) -> None:
    key = (await world.key(limit(10, LimitKind.DAY))).key
    async with world.ledger() as ledger, world.ledger() as late:  # the second one knows nothing of the key yet
        world.clock.at = NOON + DAY
        await stood(world, ledger, key, 7)
        world.clock.at = NOON
        with pytest.raises(InsufficientFunds):
            await stood(world, late, key, 4)
        (await stood(world, late, key, 3)).settle(used(1), Outcome.FINISHED)
        await late.flush()
        balance = await world.accounts.balance(key.account_id)
        assert (balance.spent, balance.reserved) == (2 * TOKEN, 7 * TOKEN)


async def test_a_lowered_limit_stops_new_requests_and_no_running_one(world: World) -> None:
    key = (await world.key(limit(10))).key
    async with world.ledger(balance_age_ms_max=0) as ledger:
        running = await stood(world, ledger, key, 8)
        await world.accounts.set_limit(key.account_id, limit(5), actor="ops")
        world.clock.at += 1
        with pytest.raises(InsufficientFunds) as caught:
            await stood(world, ledger, key, 1)
        assert caught.value.left == 0
        assert running.settle(used(7), Outcome.FINISHED) == 8 * TOKEN


async def test_a_request_id_is_used_once(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger, world.ledger() as other:
        first = await stood(world, ledger, key, 10, "same")
        for place in (ledger, other):
            with pytest.raises(DuplicateRequest, match="'same' exists already"):
                await stood(world, place, key, 10, "same")
        first.settle(used(3), Outcome.FINISHED)
        await ledger.flush()
        for place in (ledger, other):
            with pytest.raises(DuplicateRequest):
                await stood(world, place, key, 10, "same")
        both = [one.reserve(world.request(key, 10, "twin")) for one in (ledger, other)]
        results = await asyncio.gather(*(one.stands() for one in both), return_exceptions=True)
        assert sum(result is None for result in results) == 1
        assert await world.entry_sums(key.id) == (1, 4 * TOKEN)


async def test_settling_before_the_reservation_stands_charges_it_once(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger:
        for end in ("settle", "void"):
            reservation = ledger.reserve(world.request(key, 10))
            if end == "settle":
                reservation.settle(used(0), Outcome.CLIENT_GONE)
            else:
                reservation.void("gone")
            assert ledger.unsettled == 1
            await ledger.flush()
        assert await world.entry_sums(key.id) == (2, TOKEN)
        assert await world.open_reservations() == 0


async def test_settling_what_was_refused_charges_nothing(world: World) -> None:
    key = (await world.key(limit(1))).key
    async with world.ledger() as ledger:
        reservation = ledger.reserve(world.request(key, 10))
        reservation.settle(used(0), Outcome.CLIENT_GONE)
        with pytest.raises(InsufficientFunds):
            await reservation.stands()
        await ledger.flush()
        assert await world.entry_sums(key.id) == (0, 0)
        assert ledger.unsettled == 0


async def test_waiting_can_be_cancelled_and_repeated(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger:
        reservation = ledger.reserve(world.request(key, 10))
        waiting = asyncio.create_task(reservation.stands())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await reservation.stands()
        await reservation.stands()


async def test_a_key_of_another_database_is_refused(world: World) -> None:
    key = Key(999, 999, "ghost", "fb-", "user", KeyTerms(), NOON)
    async with world.ledger() as ledger:
        with pytest.raises(UnknownKey):
            await stood(world, ledger, key, 1)


async def test_text_that_a_database_cannot_hold_is_stored_all_the_same(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger:
        request = world.request(key, 1, "odd", user="a\0b\udcff" + "é" * 1000, model="x" * 1000)
        reservation = ledger.reserve(request)
        await reservation.stands()
        reservation.settle(used(0), Outcome.FINISHED)
        await ledger.flush()
        record = await Usage(world.database).request("odd")
        assert record is not None
        assert record.user is not None
        assert record.user.startswith("a\ufffdb?é")
        assert len(record.model) == len(record.user) == 256
    for bad in ("", "x" * 129, "nul\0"):
        with pytest.raises(InvalidSetting):
            world.request(key, 1, request_id=bad)


async def test_amounts_beyond_a_bigint_are_refused(world: World) -> None:
    key = (await world.key(NO_LIMIT)).key
    async with world.ledger() as ledger:
        with pytest.raises(InvalidAmount):
            ledger.reserve(world.request(key, 10**13))
        await stood(world, ledger, key, 9 * 10**12)
        with pytest.raises(InsufficientFunds):  # even without a limit, the sum must fit
            await stood(world, ledger, key, 10**12)


async def test_nothing_is_reserved_once_the_ledger_closes(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger:
        reservation = await stood(world, ledger, key, 10)
        reservation.settle(used(3), Outcome.SHUTDOWN)
    assert await world.entry_sums(key.id) == (1, 4 * TOKEN)  # closing wrote it
    assert not ledger.available
    with pytest.raises(LedgerUnavailable):
        ledger.reserve(world.request(key, 1))


async def test_money_for_fifty_admits_fifty_of_two_hundred_from_two_processes(world: World) -> None:
    new = await world.key(limit(500))
    async with world.ledger() as one, world.ledger() as two:

        async def attempt(number: int) -> bool:
            try:
                reservation = (one, two)[number % 2].reserve(world.request(new.key, 10))
                await reservation.stands()
            except InsufficientFunds:
                return False
            reservation.observe(used(5))
            balance = await world.accounts.balance(new.key.account_id)
            assert balance.spent + balance.reserved <= balance.limit.amount
            await release.wait()
            reservation.settle(used(9), Outcome.FINISHED)
            return True

        release = asyncio.Event()
        attempts = [asyncio.create_task(attempt(number)) for number in range(200)]
        while sum(task.done() for task in attempts) < 150:
            await asyncio.sleep(0.01)
        release.set()
        admitted = await asyncio.gather(*attempts)
        await asyncio.gather(one.flush(), two.flush())
        assert sum(admitted) == 50
        assert await world.entry_sums(new.key.id) == (50, 500 * TOKEN)
        assert (await world.accounts.balance(new.key.account_id)).left == 0


async def test_many_accounts_and_keys_from_two_processes_add_up_without_a_deadlock(world: World) -> None:
    """Batches that meet the same rows in every order, beside changes by an administrator."""
    account_ids = [(await world.account(limit(10**6))).id for _ in range(4)]
    keys = [
        (await world.keys.create(account_id, f"key {number}", actor="test")).key
        for account_id in account_ids
        for number in range(3)
    ]
    spent = dict.fromkeys((key.id for key in keys), 0)
    async with world.ledger(batch_max=7) as one, world.ledger(batch_max=7) as two:

        async def client(number: int) -> None:
            for turn in range(12):
                key = keys[(number * 7 + turn * 5) % len(keys)]
                reservation = await stood(world, (one, two)[(number + turn) % 2], key, 10)
                reservation.observe(used(turn % 9))
                await asyncio.sleep(0)
                spent[key.id] += reservation.settle(used(turn % 9), Outcome.FINISHED)

        async def administrator() -> None:
            for turn in range(10):
                await world.accounts.set_limit(account_ids[turn % 4], limit(10**6 + turn), actor="ops")
                await world.accounts.suspend(account_ids[-1 - turn % 4], actor="ops")
                await world.keys.set_terms(keys[turn].id, KeyTerms((limit(10**5),)), actor="ops")

        await asyncio.gather(*(client(number) for number in range(24)), administrator())
        await asyncio.gather(one.flush(), two.flush())
    for key in keys:
        assert (await world.entry_sums(key.id))[1] == spent[key.id]
        assert (await world.keys.balance(key.id)).spent == spent[key.id]
    for account_id in account_ids:
        balance = await world.accounts.balance(account_id)
        assert balance.spent == sum(spent[key.id] for key in keys if key.account_id == account_id)
        assert balance.reserved == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [("heartbeat_ms", 10_000), ("checkpoint_ms", 0), ("checkpoint_ms", 2_000), ("batch_max", 0), ("entry_days", 1)],
)
def test_settings_that_break_a_promise_are_refused(setting: str, value: int) -> None:
    with pytest.raises(InvalidSetting, match=str(value)):
        quick(**{setting: value})


async def test_settled_means_written(world: World) -> None:
    """Whoever asks for usage after an answer finds the answer's cost, however long ends may linger."""
    key = (await world.key()).key
    async with world.ledger(settle_linger_ms=60_000) as ledger:
        reservations = [await stood(world, ledger, key, 10) for _ in range(3)]
        for reservation in reservations:
            reservation.settle(used(3), Outcome.FINISHED)
        assert ledger.unsettled == 3
        async with asyncio.timeout(5):
            await ledger.settled()
        assert ledger.unsettled == 0
        assert (await world.entry_sums(key.id))[0] == 3
        async with asyncio.timeout(5):
            await ledger.settled()  # there is nothing to wait for

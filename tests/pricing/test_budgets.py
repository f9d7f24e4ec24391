"""Several limits at once: what each refuses, what it says, and that none is ever overrun."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime

import pytest

from pricing.balance import LIMITS_CAP, Balance, Limit, LimitKind, checked_limits, limits_json, limits_of
from pricing.errors import InsufficientFunds
from pricing.key import Key, KeyTerms
from pricing.ledger import Ledger
from pricing.money import InvalidAmount, Picodollars
from pricing.reservation import Outcome
from storage.database import Database
from storage.errors import InvalidSetting
from tests.pricing.ledger_world import HOUR, TOKEN, World, quick, used

BERLIN = "Europe/Berlin"


def limit(tokens: int, kind: LimitKind = LimitKind.TOTAL, zone: str = "UTC", model: str | None = None) -> Limit:
    return Limit(kind, Picodollars(tokens * TOKEN), zone, model=model)


# Hours and days in zones with daylight saving, each a little larger than the one before.
EIGHT = (
    limit(20, LimitKind.HOUR),
    limit(21, LimitKind.DAY, BERLIN),
    limit(22, LimitKind.DAY, "America/New_York"),
    limit(23, LimitKind.WEEK, "Australia/Lord_Howe"),
    limit(24, LimitKind.MONTH, BERLIN),
    limit(25),
    limit(15, model="demo"),
    limit(12, LimitKind.HOUR, "Asia/Kolkata", model="other"),
)


async def spend(ledger: Ledger, world: World, key: Key, tokens: int, model: str = "demo") -> None:
    reservation = ledger.reserve(world.request(key, tokens, model=model))
    await reservation.stands()
    reservation.settle(used(tokens - 1), Outcome.FINISHED)
    await ledger.flush()


async def test_the_refusal_names_the_limit_that_is_full_and_when_it_opens(world: World) -> None:
    world.clock.at = int(datetime.fromisoformat("2026-10-24T12:00Z").timestamp() * 1000)
    limits = (limit(10, LimitKind.DAY, BERLIN), limit(4, LimitKind.HOUR, model="demo"), limit(100))
    key = (await world.key(terms=KeyTerms(limits))).key
    async with world.ledger() as ledger:
        await spend(ledger, world, key, 3)
        with pytest.raises(InsufficientFunds, match=r"limit of 0\.000004 per hour for demo, which opens again") as hour:
            await spend(ledger, world, key, 2)
        assert hour.value.opens_at == world.clock.at + HOUR
        await spend(ledger, world, key, 6, "other")
        with pytest.raises(InsufficientFunds, match=r"\(Europe/Berlin\).*2026-10-24T22:00:00") as day:
            await spend(ledger, world, key, 2)  # the hour is full, too, but opens sooner
        assert (day.value.scope, day.value.left) == ("key", TOKEN)
        world.clock.at += 10 * HOUR
        with pytest.raises(InsufficientFunds) as never:
            await spend(ledger, world, key, 5)
        assert never.value.opens_at is None, "no hour is long enough for this"
        await spend(ledger, world, key, 4)
    hours, days, total = (await world.keys.balance(key.id)).limits[1], *(await world.keys.balance(key.id)).limits[::2]
    assert (hours.spent, days.spent, total.spent) == (4 * TOKEN, 4 * TOKEN, 13 * TOKEN)


async def test_another_zone_counts_what_its_own_day_has_seen(world: World) -> None:
    world.clock.at = int(datetime.fromisoformat("2026-11-20T18:00Z").timestamp() * 1000)
    account = await world.account(limit(50, LimitKind.DAY))
    key = (await world.keys.create(account.id, "key", actor="test")).key
    async with world.ledger() as ledger:
        await spend(ledger, world, key, 5)
        world.clock.at += HOUR // 3  # 18:20, five minutes after midnight in Kathmandu
        await spend(ledger, world, key, 7)
        running = ledger.reserve(world.request(key, 2))
        await running.stands()
        found = {}
        for zone in ("Asia/Kathmandu", "UTC", "Pacific/Kiritimati"):
            balance = await world.accounts.set_limits(account.id, [limit(50, LimitKind.DAY, zone)], actor="test")
            found[zone] = balance.spent // TOKEN, balance.reserved // TOKEN
        assert found == {"Asia/Kathmandu": (7, 2), "UTC": (12, 2), "Pacific/Kiritimati": (12, 2)}
        running.void("test")
        await ledger.flush()
        assert (await world.accounts.balance(account.id)).reserved == 0


async def test_what_is_spent_on_one_model_leaves_the_limit_of_another(world: World) -> None:
    key = (await world.key(limit(3, model="other"))).key
    async with world.ledger() as ledger:
        await spend(ledger, world, key, 50)
        await spend(ledger, world, key, 3, "other")
        with pytest.raises(InsufficientFunds):
            await spend(ledger, world, key, 1, "other")
        await spend(ledger, world, key, 50)
    balance = await world.accounts.balance(key.account_id)
    assert (balance.left, balance.limits[0].left, balance.spent_total) == (None, 0, 103 * TOKEN)


async def test_processes_that_race_overrun_none_of_eight_limits(world: World) -> None:
    account = await world.account(*(limit(one.amount // TOKEN + 5, one.kind, one.zone, one.model) for one in EIGHT))
    keys = [(await world.keys.create(account.id, name, KeyTerms(EIGHT), actor="test")).key for name in ("a", "b")]
    other = await Database.open(world.url)
    settings = quick(clock=world.clock)
    ledgers = [await Ledger.open(world.database, settings), await Ledger.open(other, settings)]
    within = True

    async def one(number: int) -> None:
        model = "demo" if number % 3 else "other"
        with contextlib.suppress(InsufficientFunds):
            await spend(ledgers[number % 2], world, keys[number // 2 % 2], 1 + number % 4, model)

    async def watch() -> None:
        nonlocal within
        while True:
            balances: list[Balance] = [await world.accounts.balance(account.id)]
            balances += [await world.keys.balance(key.id) for key in keys]
            within &= all(each.spent + each.reserved <= each.limit.amount for of in balances for each in of.limits)
            await asyncio.sleep(0.002)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(one(number) for number in range(60)))
    watching.cancel()
    assert within
    balance = await world.accounts.balance(account.id)
    assert balance.reserved_total == 0
    assert balance.spent_total == sum([(await world.entry_sums(key.id))[1] for key in keys]) > 0
    assert [each.spent for each in balance.limits[:6]] == [balance.spent_total] * 6
    for ledger in ledgers:
        await ledger.close()
    await other.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: limit(1, LimitKind.DAY, "Mars/Olympus"), "time zone 'Mars/Olympus' isn't known"),
        (lambda: limit(1, LimitKind.DAY, "../etc/passwd"), "isn't known"),
        (lambda: limit(1, LimitKind.TOTAL, BERLIN), "no periods"),
        (lambda: Limit(LimitKind.DAY, week_start="sunday"), "no first day"),
        (lambda: limit(1, LimitKind.PREPAID, model="demo"), "can't be for one model"),
        (lambda: limit(1, model=" "), "name of a model"),
        (lambda: limit(1, LimitKind.NONE), "has no amount"),
        (lambda: limit(-1), "A limit of -"),
        (lambda: checked_limits([limit(1), limit(2)], prepaid=True), "two limits of in all"),
        (lambda: checked_limits([limit(1, LimitKind.PREPAID)], prepaid=False), "Only accounts can be prepaid"),
        (lambda: checked_limits([limit(1, model=f"{n}") for n in range(LIMITS_CAP + 1)], prepaid=True), "at most 64"),
    ],
)
def test_a_limit_that_can_not_be_is_refused(wrong: object, message: str) -> None:
    assert callable(wrong)
    with pytest.raises((InvalidSetting, InvalidAmount), match=message):
        wrong()


def test_limits_come_back_from_the_database_as_they_went() -> None:
    limits = (*EIGHT, Limit(LimitKind.WEEK, Picodollars(1), week_start="sunday"))
    assert limits_of(limits_json(limits)) == limits

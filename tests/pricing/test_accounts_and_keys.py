"""Accounts, keys, and the log of who changed them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pricing.audit import AuditLog
from pricing.balance import NO_LIMIT, Limit, LimitKind
from pricing.errors import DuplicateName, UnknownAccount, UnknownKey
from pricing.key import KeyTerms
from pricing.money import InvalidAmount, Picodollars, parse_usd
from pricing.reservation import Outcome
from pricing.secret import check_registered, hash_secret, is_well_formed, new_secret, prefix_of
from storage.errors import InvalidSetting
from tests.pricing.ledger_world import DAY, NOON, TOKEN, World, used

FIVE_USD = parse_usd("5")


async def test_accounts_are_made_found_and_listed(world: World) -> None:
    acme = await world.accounts.create("acme", Limit(LimitKind.DAY, FIVE_USD), actor="ops")
    other = await world.accounts.create("other", actor="ops")
    assert await world.accounts.get(acme.id) == acme
    assert await world.accounts.find("acme") == acme
    assert await world.accounts.find("nobody") is None
    assert await world.accounts.list() == [acme, other]
    assert await world.accounts.list(after=acme.id) == [other]
    assert (await world.accounts.balance(acme.id)).left == FIVE_USD
    assert (await world.accounts.balance(other.id)).left is None
    assert set(await world.accounts.balances([acme.id, other.id, 99])) == {acme.id, other.id}
    assert (await world.accounts.rename(acme.id, "acme 2", actor="ops")).name == "acme 2"


async def test_unknown_and_duplicate_accounts_are_told(world: World) -> None:
    account = await world.accounts.create("acme", actor="ops")
    await world.accounts.create("other", actor="ops")
    with pytest.raises(DuplicateName, match="'acme' exists already"):
        await world.accounts.create("acme", actor="ops")
    with pytest.raises(DuplicateName):
        await world.accounts.rename(account.id, "other", actor="ops")
    with pytest.raises(UnknownAccount, match="no account 99"):
        await world.accounts.get(99)
    with pytest.raises(UnknownAccount):
        await world.accounts.set_limit(99, NO_LIMIT, actor="ops")
    with pytest.raises(UnknownAccount):
        await world.keys.create(99, "key", actor="ops")
    for name in ("", " padded", "line\nbreak", "x" * 201, "nul\0"):
        with pytest.raises(InvalidSetting):
            await world.accounts.create(name, actor="ops")


async def test_credit_is_added_once_for_each_reference(world: World) -> None:
    account = await world.account(Limit(LimitKind.PREPAID, FIVE_USD))
    for _ in range(2):
        balance = await world.accounts.add_credit(account.id, FIVE_USD, actor="shop", reference="payment-1")
        assert balance.left == parse_usd("10")
    assert (await world.accounts.add_credit(account.id, FIVE_USD, actor="shop")).left == parse_usd("15")
    with pytest.raises(InvalidSetting, match=r"was used to add \$5.00"):
        await world.accounts.add_credit(account.id, parse_usd("6"), actor="shop", reference="payment-1")
    with pytest.raises(InvalidAmount, match="positive"):
        await world.accounts.add_credit(account.id, Picodollars(0), actor="shop")
    monthly = await world.account(Limit(LimitKind.MONTH, FIVE_USD))
    with pytest.raises(InvalidSetting, match="Set a limit of kind prepaid first"):
        await world.accounts.add_credit(monthly.id, FIVE_USD, actor="shop")


async def test_a_new_limit_counts_what_its_period_has_seen(world: World) -> None:
    new = await world.key()
    async with world.ledger() as ledger:

        async def spend(tokens: int) -> None:
            reservation = ledger.reserve(world.request(new.key, tokens))
            await reservation.stands()
            reservation.settle(used(tokens - 1), Outcome.FINISHED)
            await ledger.flush()

        await spend(10)  # 20 November
        world.clock.at += DAY
        await spend(20)
        await ledger.reserve(world.request(new.key, 3)).stands()  # still running
        limits = {LimitKind.DAY: 23, LimitKind.MONTH: 33, LimitKind.TOTAL: 33}
        for kind, taken in limits.items():
            limit = Limit(kind, Picodollars(100 * TOKEN))
            balance = await world.accounts.set_limit(new.key.account_id, limit, actor="ops")
            assert balance.left == (100 - taken) * TOKEN
            await world.keys.set_terms(new.key.id, KeyTerms((limit,)), actor="ops")
            assert (await world.keys.balance(new.key.id)).left == (100 - taken) * TOKEN
        prepaid = Limit(LimitKind.PREPAID, Picodollars(50 * TOKEN))
        assert (await world.accounts.set_limit(new.key.account_id, prepaid, actor="ops")).left == 50 * TOKEN
        await spend(7)
        balance = await world.accounts.balance(new.key.account_id)
        assert (balance.left, balance.spent, balance.spent_total) == (43 * TOKEN, 7 * TOKEN, 37 * TOKEN)


async def test_a_key_keeps_its_terms(world: World) -> None:
    account = await world.account()
    terms = KeyTerms(
        limits=(Limit(LimitKind.MONTH, FIVE_USD),),
        models=frozenset({"b", "a"}),
        requests_per_minute=60,
        tokens_per_minute=10_000,
        concurrent_requests=4,
        expires_at=NOON + DAY,
    )
    new = await world.keys.create(account.id, "key", terms, actor="ops", role="admin")
    assert await world.keys.get(new.key.id) == new.key
    assert (new.key.terms, new.key.role) == (terms, "admin")
    assert new.key.allows("a")
    assert not new.key.allows("c")
    changed = await world.keys.set_terms(new.key.id, replace(terms, models=None, expires_at=None), actor="ops")
    assert changed.terms == replace(terms, models=None, expires_at=None)
    assert changed.allows("c")
    with pytest.raises(InvalidSetting, match="Only accounts can be prepaid"):
        KeyTerms(limits=(Limit(LimitKind.PREPAID),))
    with pytest.raises(InvalidSetting, match="requests_per_minute is -1"):
        KeyTerms(requests_per_minute=-1)


async def test_keys_are_found_by_prefix_case_and_all(world: World) -> None:
    account = await world.account()
    new = await world.keys.create(account.id, "one", actor="ops")
    await world.keys.create(account.id, "two", actor="ops")
    assert new.secret.startswith(new.key.prefix)
    assert await world.keys.list(prefix=new.key.prefix) == [new.key]
    assert await world.keys.list(prefix=new.key.prefix.swapcase()) == []
    assert len(await world.keys.list(account_id=account.id, prefix="fb-")) == 2
    await world.keys.revoke(new.key.id, actor="ops")
    assert await world.keys.list(prefix=new.key.prefix) == []
    assert len(await world.keys.list(prefix=new.key.prefix, include_revoked=True)) == 1


async def test_names_and_secrets_are_unique_among_keys_in_use(world: World) -> None:
    account = await world.account()
    secret = "a-secret-of-my-own-0123456789"
    first = await world.keys.create(account.id, "key", actor="ops", secret=secret)
    with pytest.raises(DuplicateName, match="'key' already"):
        await world.keys.create(account.id, "key", actor="ops")
    with pytest.raises(DuplicateName) as caught:
        await world.keys.create(account.id, "other", actor="ops", secret=secret)
    assert secret not in str(caught.value)
    assert await world.keys.by_secret(secret) == first.key
    assert await world.keys.by_secret("unknown") is None
    await world.keys.revoke(first.key.id, actor="ops")
    await world.keys.create(account.id, "key", actor="ops")
    with pytest.raises(UnknownKey):
        await world.keys.rename(99, "x", actor="ops")


async def test_a_revoked_key_cannot_be_rotated(world: World) -> None:
    new = await world.key()
    revoked = await world.keys.revoke(new.key.id, actor="ops")
    assert revoked.revoked_at == NOON
    assert await world.keys.revoke(new.key.id, actor="ops") == revoked
    with pytest.raises(InvalidSetting, match="create another key"):
        await world.keys.rotate(new.key.id, grace_ms=0, actor="ops")


async def test_every_change_is_in_the_audit_log_without_secrets(world: World) -> None:
    account = await world.accounts.create("acme", Limit(LimitKind.PREPAID, FIVE_USD), actor="ada")
    new = await world.keys.create(account.id, "key", actor="bob")
    await world.accounts.add_credit(account.id, FIVE_USD, actor="shop")
    await world.keys.set_terms(new.key.id, KeyTerms(requests_per_minute=5), actor="bob")
    rotated = await world.keys.rotate(new.key.id, grace_ms=0, actor="bob")
    await world.accounts.suspend(account.id, actor="eve")
    await world.accounts.resume(account.id, actor="ada")
    await world.keys.revoke(new.key.id, actor="bob")
    log = AuditLog(world.database)
    records = await log.list()
    assert [(record.actor, record.action) for record in reversed(records)] == [
        ("ada", "account.create"),
        ("bob", "key.create"),
        ("shop", "account.add_credit"),
        ("bob", "key.set_terms"),
        ("bob", "key.rotate"),
        ("eve", "account.suspend"),
        ("ada", "account.resume"),
        ("bob", "key.revoke"),
    ]
    assert json.loads(records[4].detail) == {"requests_per_minute": {"from": None, "to": 5}}
    assert json.loads(records[5].detail) == {"limits": {"from": "5.00 prepaid", "to": "10.00 prepaid"}}
    everything = "".join(record.detail for record in records)
    assert new.secret not in everything
    assert rotated.secret not in everything
    assert len(await log.list(key_id=new.key.id)) == 4
    assert await log.list(account_id=account.id, before=records[0].id, count_max=1) == [records[1]]


async def test_a_change_that_fails_leaves_no_trace(world: World) -> None:
    account = await world.account(Limit(LimitKind.PREPAID, FIVE_USD))
    with pytest.raises(InvalidSetting, match="can't be the actor"):
        await world.accounts.set_limit(account.id, NO_LIMIT, actor="")
    assert (await world.accounts.get(account.id)).limit == Limit(LimitKind.PREPAID, FIVE_USD)


def test_a_secret_shows_itself_nowhere_but_in_its_field() -> None:
    secret = new_secret()
    assert is_well_formed(secret)
    assert len(secret) == 41
    assert prefix_of(secret) == secret[:11]
    assert len(hash_secret(secret)) == 32


@pytest.mark.parametrize("position", range(41))
def test_a_secret_with_any_character_changed_is_not_well_formed(position: int) -> None:
    secret = new_secret()
    other = "x" if secret[position] != "x" else "y"
    assert not is_well_formed(secret[:position] + other + secret[position + 1 :])


@pytest.mark.parametrize("secret", ["", "fb-", "fb-" + "0" * 38, "fb-" + "é" * 38, "sk-" + "0" * 38, "fb-" + "٣" * 38])
def test_junk_is_not_well_formed(secret: str) -> None:
    assert not is_well_formed(secret)


@pytest.mark.parametrize(
    "secret", ["short", "x" * 23, "x" * 513, "has a space in the middle of it", "ü" * 30, "a\0" * 15]
)
def test_a_weak_secret_of_ones_own_is_refused_unrepeated(secret: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        check_registered(secret)
    assert secret not in str(caught.value)


async def test_accounts_near_their_limits_are_counted(world: World) -> None:
    for name, limit in (
        ("unlimited", NO_LIMIT),
        ("fresh", Limit(LimitKind.TOTAL, FIVE_USD)),
        ("near", Limit(LimitKind.PREPAID, Picodollars(10 * TOKEN))),
        ("empty", Limit(LimitKind.TOTAL, Picodollars(0))),
        ("daily", Limit(LimitKind.DAY, Picodollars(10 * TOKEN))),
    ):
        await world.accounts.create(name, Limit(limit.kind, Picodollars(limit.amount)), actor="ops")
    async with world.ledger() as ledger:
        for name in ("near", "daily"):
            account = await world.accounts.find(name)
            assert account is not None
            key = (await world.keys.create(account.id, "key", actor="ops")).key
            reservation = ledger.reserve(world.request(key, 9))
            await reservation.stands()
            reservation.settle(used(8), Outcome.FINISHED)
    assert await world.accounts.count_spent(90) == 3
    assert await world.accounts.count_spent(100) == 1
    world.clock.at += DAY
    assert await world.accounts.count_spent(90) == 2, "a new day's limit is whole again, until something is reserved"

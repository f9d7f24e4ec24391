"""Authentication from memory: right, quick to notice a change, and blind to what it needn't know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pricing.clock import Clock, monotonic
from pricing.directory import DirectorySettings, KeyDirectory
from pricing.key import Key, KeyTerms
from pricing.secret import new_secret
from storage.database import Database
from storage.errors import LedgerUnavailable
from tests.pricing.ledger_world import DAY, HOUR, NOON, HandClock, World


@asynccontextmanager
async def replica(world: World, refresh_ms: int = 400, monotonic: Clock = monotonic) -> AsyncIterator[KeyDirectory]:
    """A directory as another process has it: with its own connections."""
    database = await Database.open(world.url)
    directory = await KeyDirectory.open(
        database, DirectorySettings(refresh_ms=refresh_ms, clock=world.clock, monotonic=monotonic)
    )
    yield directory
    await directory.close()
    await database.close()


async def seen_within_a_second(directory: KeyDirectory, secret: str, expected: Key | None) -> None:
    async with asyncio.timeout(1):  # the promise: a revoke is seen within 1 s
        while directory.find(secret) != expected:
            await asyncio.sleep(0.01)


async def test_a_revoked_key_stops_on_another_replica_within_a_second(world: World) -> None:
    new = await world.key()
    async with replica(world) as directory:
        assert directory.find(new.secret) == new.key
        await world.keys.revoke(new.key.id, actor="ops")
        await seen_within_a_second(directory, new.secret, None)


async def test_new_keys_and_changed_terms_arrive_by_themselves(world: World) -> None:
    async with replica(world) as directory:
        new = await world.key()
        await seen_within_a_second(directory, new.secret, new.key)
        changed = await world.keys.set_terms(new.key.id, KeyTerms(concurrent_requests=1), actor="ops")
        await seen_within_a_second(directory, new.secret, changed)


async def test_a_suspended_account_stops_all_its_keys_until_it_is_resumed(world: World) -> None:
    new = await world.key()
    async with replica(world, 60_000) as directory:
        await world.accounts.suspend(new.key.account_id, actor="ops")
        await directory.refresh()
        assert directory.find(new.secret) is None
        await world.accounts.resume(new.key.account_id, actor="ops")
        await directory.refresh()
        assert directory.find(new.secret) == new.key


async def test_a_rotated_key_takes_both_secrets_for_the_grace_period(world: World) -> None:
    old = await world.key()
    async with replica(world, 60_000) as directory:
        new = await world.keys.rotate(old.key.id, grace_ms=HOUR, actor="ops")
        await directory.refresh()
        assert directory.find(old.secret) == directory.find(new.secret) == new.key
        world.clock.at += HOUR
        assert directory.find(old.secret) is None
        assert directory.find(new.secret) == new.key
        newer = await world.keys.rotate(old.key.id, grace_ms=HOUR, actor="ops")
        newest = await world.keys.rotate(old.key.id, grace_ms=HOUR, actor="ops")
        await directory.refresh()
        found = [directory.find(one.secret) is not None for one in (old, new, newer, newest)]
        assert found == [False, False, True, True]


async def test_a_key_expires_to_the_millisecond(world: World) -> None:
    new = await world.key(terms=KeyTerms(expires_at=NOON + DAY))
    async with replica(world, 60_000) as directory:
        world.clock.at = NOON + DAY - 1
        await directory.refresh()
        assert directory.find(new.secret) == new.key
        world.clock.at = NOON + DAY
        assert directory.find(new.secret) is None


async def test_a_key_made_elsewhere_is_resolved_at_once(world: World) -> None:
    async with replica(world, 60_000) as directory:
        new = await world.key()
        assert directory.find(new.secret) is None
        assert await directory.resolve(new.secret) == new.key


async def test_junk_never_reaches_the_database(world: World) -> None:
    account = await world.account()
    async with replica(world, 60_000) as directory:
        secret = "not-of-our-form-but-registered"
        await world.keys.create(account.id, "key", actor="ops", secret=secret)
        # It exists, and would be found if the database were asked.
        assert await directory.resolve(secret) is None
        for junk in ("", "fb-", "x" * 100_000, "fb-" + "0" * 38, "\udcff", "ключ"):
            assert await directory.resolve(junk) is None
        await directory.refresh()
        assert await directory.resolve(secret) is not None


async def test_a_flood_of_made_up_secrets_shares_its_queries(world: World) -> None:
    async with replica(world, 60_000) as directory:
        before = directory.reads
        found = await asyncio.gather(*(directory.resolve(new_secret()) for _ in range(500)))
        assert found == [None] * 500
        assert directory.reads - before <= 50  # on an idle machine it is one


async def test_keys_stay_valid_for_a_stated_time_without_the_database(world: World) -> None:
    new = await world.key()
    monotonic = HandClock()
    async with replica(world, 60_000, monotonic) as directory:
        monotonic.at += 300_000
        assert directory.find(new.secret) == new.key
        monotonic.at += 1
        with pytest.raises(LedgerUnavailable):
            directory.find(new.secret)
        await directory.refresh()
        assert directory.find(new.secret) == new.key


async def test_many_keys_are_loaded_in_pages(world: World) -> None:
    account = await world.account()
    secrets = [f"registered-secret-number-{number:05d}" for number in range(30)]
    for secret in secrets:
        await world.keys.create(account.id, secret, actor="ops", secret=secret)
    database = await Database.open(world.url)
    directory = await KeyDirectory.open(database, DirectorySettings(page=7, clock=world.clock))
    assert all(directory.find(secret) for secret in secrets)
    await directory.close()
    await database.close()


async def test_no_secret_is_in_any_representation(world: World) -> None:
    new = await world.key()
    async with replica(world) as directory:
        for thing in (new, new.key, directory, world.database):
            assert new.secret not in repr(thing)
            assert new.secret not in str(thing)

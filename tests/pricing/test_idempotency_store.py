"""Claims and answers of idempotency keys, on SQLite and on PostgreSQL."""

import asyncio
from dataclasses import dataclass

import pytest

from gateway.idempotency.store import Answer, IdempotencyStore
from storage.database import Database

LIFE_MS = 86_400_000
HASH = b"h" * 32
ANSWER = Answer(200, "text/event-stream; charset=utf-8", b"data: x\n\n" * 50_000)


@dataclass
class HandClock:
    now: int = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def store(database: Database, clock: HandClock) -> IdempotencyStore:
    return IdempotencyStore(database, clock)


async def test_one_of_many_claims_at_once_wins(store: IdempotencyStore) -> None:
    found = await asyncio.gather(*(store.claim(1, "k", HASH, f"r{i}", life_ms=LIFE_MS) for i in range(50)))
    winners = [index for index, claim in enumerate(found) if claim is None]
    assert len(winners) == 1
    assert {claim.request_id for claim in found if claim is not None} == {f"r{winners[0]}"}


async def test_an_answer_comes_back_byte_for_byte(store: IdempotencyStore) -> None:
    assert await store.claim(1, "k", HASH, "r", life_ms=LIFE_MS) is None
    await store.finish(1, "k", "r", ANSWER, life_ms=LIFE_MS)
    found = await store.claim(1, "k", HASH, "other", life_ms=LIFE_MS)
    assert found is not None
    assert (found.state, found.answer, found.body_hash) == ("done", ANSWER, HASH)


async def test_keys_of_two_clients_are_two_claims(store: IdempotencyStore) -> None:
    assert await store.claim(1, "k", HASH, "a", life_ms=LIFE_MS) is None
    assert await store.claim(2, "k", HASH, "b", life_ms=LIFE_MS) is None


async def test_one_of_many_takes_over_from_the_dead(store: IdempotencyStore) -> None:
    await store.claim(1, "k", HASH, "dead", life_ms=LIFE_MS)
    claim = await store.claim(1, "k", HASH, "r", life_ms=LIFE_MS)
    assert claim is not None
    taken = await asyncio.gather(*(store.take_over(claim, HASH, f"r{i}", life_ms=LIFE_MS) for i in range(20)))
    assert sum(taken) == 1


async def test_a_process_that_was_taken_over_from_changes_nothing(store: IdempotencyStore) -> None:
    await store.claim(1, "k", HASH, "slow", life_ms=LIFE_MS)
    claim = await store.claim(1, "k", HASH, "r", life_ms=LIFE_MS)
    assert claim is not None
    await store.take_over(claim, HASH, "new", life_ms=LIFE_MS)
    await store.finish(1, "k", "slow", ANSWER, life_ms=LIFE_MS)
    await store.release(1, "k", "slow")
    found = await store.claim(1, "k", HASH, "r", life_ms=LIFE_MS)
    assert found is not None
    assert (found.state, found.request_id) == ("running", "new")


async def test_an_answer_can_not_be_taken_over(store: IdempotencyStore) -> None:
    await store.claim(1, "k", HASH, "r", life_ms=LIFE_MS)
    claim = await store.claim(1, "k", HASH, "r2", life_ms=LIFE_MS)
    assert claim is not None
    await store.finish(1, "k", "r", ANSWER, life_ms=LIFE_MS)
    assert not await store.take_over(claim, HASH, "r2", life_ms=LIFE_MS)


async def test_a_released_or_expired_claim_is_free(store: IdempotencyStore, clock: HandClock) -> None:
    await store.claim(1, "k", HASH, "r", life_ms=LIFE_MS)
    await store.release(1, "k", "r")
    assert await store.claim(1, "k", HASH, "r2", life_ms=LIFE_MS) is None
    await store.finish(1, "k", "r2", ANSWER, life_ms=LIFE_MS)
    clock.now += LIFE_MS
    assert await store.claim(1, "k", HASH, "r3", life_ms=LIFE_MS) is None


async def test_purging_removes_what_has_expired(store: IdempotencyStore, clock: HandClock) -> None:
    for number in range(1100):
        await store.claim(1, f"k{number}", HASH, "r", life_ms=1000 if number < 1050 else LIFE_MS)
    clock.now += 1000
    assert await store.purge() == 1050
    assert await store.purge() == 0

"""A replica that freezes in the middle of a commit holds row locks; the others must go on without it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from pricing.keys import Key
from pricing.ledger import Ledger, LedgerSettings
from pricing.reservation import Outcome
from storage.database import Database
from storage.errors import LedgerUnavailable, RowsLocked
from storage.postgres_server import DatabaseTimes
from tests.pricing.ledger_world import World, used

pytestmark = pytest.mark.parametrize("fresh_url", ["postgresql"], indirect=True)

# A replica that commits one after the other on one key, on a connection that tests can name.
REPLICA = """
import asyncio, sys
from storage.database import Database
from pricing.keys import Keys
from pricing.ledger import Ledger
from pricing.reservation import Outcome
from tests.pricing.ledger_world import World, used

async def client(world, ledger, key, number):
    for turn in range(1_000_000):
        reservation = ledger.reserve(world.request(key, 10, f"frozen-{number}-{turn}"))
        await reservation.stands()
        reservation.settle(used(1), Outcome.FINISHED)

async def main(url, key_id):
    database = await Database.open(url)
    ledger = await Ledger.open(database)
    key = await Keys(database).get(key_id)
    await asyncio.gather(*(client(World(database, url), ledger, key, number) for number in range(16)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""
HELD = """
SELECT count(*) FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE application_name = 'frozen' AND state = 'idle in transaction' AND relation = 'accounts'::regclass
  AND mode = 'RowShareLock'
"""


@dataclass
class Replica:
    """A process of this test's own, and a look at its sessions."""

    process: subprocess.Popen[bytes]
    observer: asyncpg.Connection

    async def freeze_within_a_commit(self) -> None:
        """Stop it at a moment at which it holds its account's row."""
        async with asyncio.timeout(60):
            while True:
                assert self.process.poll() is None
                if await self.observer.fetchval(HELD):
                    self.process.send_signal(signal.SIGSTOP)
                    await asyncio.sleep(0.1)  # what was on its way to the server has arrived
                    if await self.observer.fetchval(HELD):
                        return
                    self.process.send_signal(signal.SIGCONT)
                await asyncio.sleep(0)


@contextmanager
def running_replica(url: str, key_id: int, script: Path) -> Iterator[subprocess.Popen[bytes]]:
    script.write_text(REPLICA)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, str(script), url, str(key_id)], env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


async def settle_one(world: World, ledger: Ledger, key: Key) -> None:
    reservation = ledger.reserve(world.request(key, 10))
    await reservation.stands()
    reservation.settle(used(1), Outcome.FINISHED)


async def test_others_go_on_while_a_replica_is_frozen_within_a_commit(world: World, tmp_path: Path) -> None:
    shared, other = (await world.key()).key, (await world.key()).key
    separator = "&" if "?" in world.url else "?"
    observer = await asyncpg.connect(world.url)
    database = await Database.open(f"{world.url}{separator}application_name=awake")
    ledger = await Ledger.open(database, LedgerSettings(clock=world.clock))
    frozen_url = f"{world.url}{separator}application_name=frozen"
    with running_replica(frozen_url, shared.id, tmp_path / "replica.py") as process:
        await Replica(process, observer).freeze_within_a_commit()
        async with asyncio.timeout(10):
            await settle_one(world, ledger, shared)
            await settle_one(world, ledger, other)
            await ledger.flush()
        assert ledger.available
        assert not ledger.stalled
        sessions = await observer.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'awake'")
        assert sessions <= 6  # the pool's five, and the group commits' own
        process.send_signal(signal.SIGCONT)  # what it had begun is rolled back, and it goes on
        before = (await world.entry_sums(shared.id))[0]
        async with asyncio.timeout(30):
            while (await world.entry_sums(shared.id))[0] == before:
                await asyncio.sleep(0.05)
    await ledger.close()
    await database.close()
    await observer.close()


@pytest.fixture
def patient_times() -> DatabaseTimes:
    """Statements give up soon; a transaction that stands still isn't ended, as with a replica of another version."""
    return DatabaseTimes(lock_ms=200, idle_ms=600_000, statement_ms=8_000)


async def test_an_account_whose_row_is_held_waits_alone(world: World, patient_times: DatabaseTimes) -> None:
    """Claims and ends of it are kept apart, everybody else's are written, and readiness follows."""
    held, free = (await world.key()).key, (await world.key()).key
    database = await Database.open(world.url, times=patient_times)
    ledger = await Ledger.open(database, LedgerSettings(clock=world.clock))
    running = ledger.reserve(world.request(held, 10))
    await running.stands()
    holder = await asyncpg.connect(world.url)
    transaction = holder.transaction()
    await transaction.start()
    await holder.fetch("SELECT id FROM accounts WHERE id = $1 FOR UPDATE", held.account_id)

    running.settle(used(4), Outcome.FINISHED)
    waiting = ledger.reserve(world.request(held, 10))
    async with asyncio.timeout(10):
        while not ledger.stalled:
            await asyncio.sleep(0.01)
    commits = 20
    async with asyncio.timeout(10):
        for _ in range(commits):
            await settle_one(world, ledger, free)
        await ledger.settled()  # what can be written; an administrator's question doesn't wait for the rest
    assert ledger.available
    assert not ledger.stalled
    assert (await world.entry_sums(free.id))[0] == commits
    assert await world.entry_sums(held.id) == (0, 0)
    assert ledger.unsettled == 1

    await transaction.rollback()
    async with asyncio.timeout(10):
        await waiting.stands()
        waiting.void("not needed")
        await ledger.flush()
    assert (await world.entry_sums(held.id))[0] == 2
    balance = await world.keys.balance(held.id)
    assert (balance.spent, balance.reserved) == ((await world.entry_sums(held.id))[1], 0)
    await ledger.close()
    await database.close()
    await holder.close()


async def test_a_claim_waits_for_a_held_row_no_longer_than_stated(world: World, patient_times: DatabaseTimes) -> None:
    held = (await world.key()).key
    database = await Database.open(world.url, times=patient_times)
    ledger = await Ledger.open(database, LedgerSettings(clock=world.clock, lock_patience_ms=300))
    holder = await asyncpg.connect(world.url)
    async with holder.transaction():
        await holder.fetch("SELECT id FROM keys WHERE id = $1 FOR UPDATE", held.id)
        with pytest.raises(RowsLocked, match="another process holds the rows") as caught:
            await ledger.reserve(world.request(held, 10)).stands()
        assert isinstance(caught.value, LedgerUnavailable)
        assert caught.value.retry_after_s > 0
        assert ledger.available
    await settle_one(world, ledger, held)
    await ledger.close()
    assert (await world.entry_sums(held.id))[0] == 1
    await database.close()
    await holder.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ["2s", "5s", "8s"]),
        ("options=-c%20lock_timeout%3D1500%20-c%20statement_timeout%3D3s", ["1500ms", "5s", "3s"]),
    ],
)
async def test_the_server_itself_bounds_every_transaction(world: World, options: str, expected: list[str]) -> None:
    separator = "&" if "?" in world.url else "?"
    database = await Database.open(f"{world.url}{separator}{options}" if options else world.url)
    names = ("lock_timeout", "idle_in_transaction_session_timeout", "statement_timeout")

    async with database.read() as connection:
        found = [(await connection.exec_driver_sql(f"SHOW {name}")).scalar_one() for name in names]
    assert found == expected
    await database.close()

"""Processes that die: nothing is lost, nothing is charged twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pricing import tables
from pricing.balance import Limit, LimitKind
from pricing.cost import Tokens, cost
from pricing.errors import Overtaken
from pricing.ledger import Ledger
from pricing.money import Picodollars
from pricing.reservation import Outcome
from pricing.usage import Usage
from storage.database import Database
from tests.pricing.ledger_world import PRICE, TOKEN, HandClock, World, quick, used

LEASE = 600_000


async def let_lease_run_out(survivor: Ledger, clock: HandClock) -> int:
    """Look as often as a ledger does by itself while a lease passes on the survivor's clock."""
    settled = await survivor.recover()
    for _ in range(4):
        clock.at += LEASE // 4
        settled += await survivor.recover()
    return settled


async def test_a_dead_process_is_settled_from_its_last_checkpoint_by_another(world: World) -> None:
    key = (await world.key()).key
    lease_clock = HandClock()
    async with world.ledger(monotonic=lease_clock, lease_ms=LEASE) as survivor:
        dying = await Ledger.open(world.database, quick(clock=world.clock, checkpoint_ms=1_000))
        reservations = [dying.reserve(world.request(key, 10, f"crash-{number}")) for number in range(3)]
        await asyncio.gather(*(one.stands() for one in reservations))
        reservations[0].observe(used(2))
        reservations[1].observe(Tokens(1, 1, 4))
        await dying.checkpoint()
        reservations[0].observe(used(5))
        await dying.abandon()
        assert await survivor.recover() == 0  # its lease still runs
        assert await let_lease_run_out(survivor, lease_clock) == 3
        records = [await Usage(world.database).request(f"crash-{number}") for number in range(3)]
        assert [record and (record.state, record.tokens) for record in records] == [
            ("interrupted", used(2)),
            ("interrupted", Tokens(1, 1, 4)),
            ("interrupted", Tokens(0, 0, 0)),
        ]
        assert (await world.keys.balance(key.id)).reserved == 0
        assert await world.entry_sums(key.id) == (3, 7 * TOKEN + TOKEN // 2)
        assert await let_lease_run_out(survivor, lease_clock) == 0


async def test_checkpoints_are_written_by_themselves(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger:
        reservation = ledger.reserve(world.request(key, 10, "running"))
        await reservation.stands()
        reservation.observe(used(3))
        async with asyncio.timeout(1):  # the promise: at most 1 s old
            while (record := await Usage(world.database).request("running")) is None or record.tokens != used(3):
                await asyncio.sleep(0.01)
        assert (record.state, record.cost, record.settled_at) == ("running", 4 * TOKEN, None)
        reservation.settle(used(3), Outcome.FINISHED)


async def test_a_process_taken_for_dead_does_not_charge_twice(world: World, caplog: pytest.LogCaptureFixture) -> None:
    key = (await world.key()).key
    lease_clock = HandClock()
    async with world.ledger(monotonic=lease_clock, lease_ms=LEASE) as survivor:
        # Ten minutes pass on the survivor's clock, and none here: as if this one had been suspended.
        slow = await Ledger.open(world.database, quick(clock=world.clock, lease_ms=LEASE, heartbeat_ms=LEASE // 3))
        reservation = slow.reserve(world.request(key, 10))
        await reservation.stands()
        assert await let_lease_run_out(survivor, lease_clock) == 1
        assert reservation.settle(used(3), Outcome.FINISHED) == 4 * TOKEN
        await slow.flush()
        assert slow.overtaken == 1
        assert "its entries stand" in caplog.text
        assert await world.entry_sums(key.id) == (1, 0)
        # It has no row any more, and dies with a new reservation before its next heartbeat.
        await slow.reserve(world.request(key, 10)).stands()
        await slow.abandon()
        assert await let_lease_run_out(survivor, lease_clock) == 0  # adopted: now it has a lease
        assert await let_lease_run_out(survivor, lease_clock) == 1
        assert await world.open_reservations() == 0


async def test_a_checkpoint_tells_a_living_process_what_another_one_settled(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    key = (await world.key()).key
    lease_clock = HandClock()
    async with world.ledger(monotonic=lease_clock, lease_ms=LEASE) as survivor:
        slow = await Ledger.open(world.database, quick(clock=world.clock, lease_ms=LEASE, heartbeat_ms=LEASE // 3))
        reservation, other = slow.reserve(world.request(key, 20)), slow.reserve(world.request(key, 20))
        await asyncio.gather(reservation.stands(), other.stands())
        told: list[str] = []
        reservation.when_overtaken(lambda: told.append("first"))
        reservation.observe(used(5))
        await slow.checkpoint()
        assert await let_lease_run_out(survivor, lease_clock) == 2
        other.settle(used(1), Outcome.FINISHED)  # before it is told
        reservation.observe(used(6))
        await slow.checkpoint()
        assert told == ["first"]
        assert reservation.is_overtaken
        assert slow.running == 0
        assert reservation.settle(used(9), Outcome.FINISHED) == 6 * TOKEN  # what the other one charged
        await slow.flush()
        assert slow.overtaken == 2
        assert "its entries stand" in caplog.text
        assert await world.entry_sums(key.id) == (2, 6 * TOKEN)
        assert (await world.keys.balance(key.id)).reserved == 0
        # What it knows of the key's money is right again.
        await slow.reserve(world.request(key, 10)).stands()
        await slow.close()


async def test_a_reservation_can_be_confirmed_after_a_standstill(world: World) -> None:
    key = (await world.key()).key
    lease_clock = HandClock()
    async with world.ledger(monotonic=lease_clock, lease_ms=LEASE) as survivor:
        slow = await Ledger.open(world.database, quick(clock=world.clock, lease_ms=LEASE, heartbeat_ms=LEASE // 3))
        kept, lost = slow.reserve(world.request(key, 20)), slow.reserve(world.request(key, 20))
        told: list[str] = []
        lost.when_overtaken(lambda: told.append("by a call too"))
        await asyncio.gather(kept.stands(), lost.stands())
        await asyncio.gather(kept.confirm(), lost.confirm())
        assert kept.settle(used(3), Outcome.FINISHED) == 4 * TOKEN
        await slow.flush()
        await kept.confirm()  # settled here: nothing was taken
        assert await let_lease_run_out(survivor, lease_clock) == 1
        with pytest.raises(Overtaken):
            await lost.confirm()
        assert told == []  # the error is enough
        assert slow.overtaken == 1
        await slow.close()


class Interrupted(Database):
    """A database in which something else happens just before a write."""

    before_write: Callable[[], Awaitable[None]] | None = None

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        happening, self.before_write = self.before_write, None
        if happening is not None:
            await happening()
        async with super().write() as connection:
            yield connection


async def test_a_process_that_beats_at_the_last_moment_lives(world: World) -> None:
    key = (await world.key()).key
    lease_clock = HandClock()
    database = await Interrupted.open(world.url)
    assert isinstance(database, Interrupted)
    settings = quick(clock=world.clock, monotonic=lease_clock, lease_ms=LEASE, heartbeat_ms=LEASE // 3)
    survivor = await Ledger.open(database, settings)
    async with world.ledger(lease_ms=LEASE, heartbeat_ms=LEASE // 3) as slow:
        reservation = slow.reserve(world.request(key, 10))
        await reservation.stands()

        async def beat() -> None:
            async with world.database.write() as connection:
                await connection.execute(update(tables.processes).values(beat=tables.processes.c.beat + 1))

        database.before_write = beat  # the first write is the one that would settle for the dead
        assert await let_lease_run_out(survivor, lease_clock) == 0
        assert database.before_write is None
        reservation.settle(used(3), Outcome.FINISHED)
        await slow.flush()
        assert slow.overtaken == 0
    await survivor.close()
    await database.close()


async def test_an_outage_of_the_database_kills_nobody(world: World) -> None:
    """Nobody can renew a lease while the database is away; who looks again must wait a whole lease first."""
    key = (await world.key()).key
    lease_clock = HandClock()
    async with world.ledger(monotonic=lease_clock, lease_ms=LEASE) as watcher:
        running = await Ledger.open(world.database, quick(clock=world.clock))
        await running.reserve(world.request(key, 10)).stands()
        await running.abandon()
        await watcher.recover()
        lease_clock.at += 10 * LEASE  # in which the watcher could not look
        assert await watcher.recover() == 0
        assert await let_lease_run_out(watcher, lease_clock) == 1


async def test_closing_with_a_running_request_leaves_it_to_the_next_start(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger:
        reservation = ledger.reserve(world.request(key, 10))
        await reservation.stands()
        reservation.observe(used(6))
    async with world.ledger():
        assert await world.entry_sums(key.id) == (1, 7 * TOKEN)
        assert await world.open_reservations() == 0


CHILD = """
import asyncio, json, sys
from pricing.cost import Tokens
from storage.database import Database
from pricing.keys import Keys
from pricing.ledger import Ledger, LedgerSettings
from pricing.reservation import Outcome
from tests.pricing.ledger_world import World

async def client(world, ledger, key, number, say):
    for turn in range(10_000):
        request_id = f"{sys.argv[3]}-{number}-{turn}"
        reservation = ledger.reserve(world.request(key, 100, request_id))
        await reservation.stands()
        for completion in range(1, 2 + (number * 3 + turn) % 12):
            reservation.observe(Tokens(1, 0, completion))
            say(request_id, completion)
            await asyncio.sleep(0.005)
        reservation.settle(Tokens(1, 0, completion), Outcome.FINISHED)

async def main(url, key_id):
    database = await Database.open(url)
    world = World(database, url)
    key = await Keys(database).get(key_id)
    ledger = await Ledger.open(database, LedgerSettings(checkpoint_ms=50))
    say = lambda request_id, completion: print(json.dumps([request_id, completion]), flush=True)
    await asyncio.gather(*(client(world, ledger, key, number, say) for number in range(1, 9)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_kill_minus_nine_at_any_moment_loses_no_request_that_a_client_saw(world: World, tmp_path: Path) -> None:
    key = (await world.key(Limit(LimitKind.TOTAL, Picodollars(10**9 * TOKEN)))).key
    seen: dict[str, int] = {}
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    for run, lines in enumerate((20, 150)):
        output = tmp_path / f"{run}.jsonl"
        with output.open("w") as stream:
            child = subprocess.Popen(
                [sys.executable, str(script), world.url, str(key.id), f"run{run}"],
                stdout=stream,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
            try:
                async with asyncio.timeout(30):
                    while len(output.read_text().splitlines()) < lines and child.poll() is None:
                        await asyncio.sleep(0.002)
            finally:
                child.send_signal(signal.SIGKILL)
                child.wait()
        for line in output.read_text().splitlines():
            if line.endswith("]"):
                request_id, completion = json.loads(line)
                seen[request_id] = completion
    assert len({request_id.split("-")[0] for request_id in seen}) == 2
    async with world.ledger():  # the next start, on the same machine: recovers at once
        assert await world.open_reservations() == 0
    table = tables.entries
    async with world.database.read() as connection:
        rows = (await connection.execute(select(table).where(table.c.key_id == key.id))).all()
    by_id = {row.request_id: row for row in rows}
    assert len(by_id) == len(rows)
    assert set(seen) <= set(by_id)
    for request_id, row in by_id.items():
        assert row.cost == cost(PRICE, Tokens(row.prompt_tokens, row.cached_tokens, row.completion_tokens))
        # Never more than the client got; less only by what came after the last checkpoint.
        assert row.completion_tokens <= seen.get(request_id, 0)
        if row.state == "settled":
            assert row.completion_tokens == seen[request_id]
    _count, total = await world.entry_sums(key.id)
    balance = await world.keys.balance(key.id)
    assert (balance.spent, balance.reserved) == (total, 0)
    assert {row.state for row in rows} == {"settled", "interrupted"}

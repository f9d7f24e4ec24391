"""Databases that go away: no request is served uncharged, and what was served is charged when they return."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from pricing.balance import Limit, LimitKind
from pricing.errors import InsufficientFunds
from pricing.ledger import Ledger
from pricing.money import Picodollars
from pricing.reservation import Outcome
from storage.database import Database, unavailable_reason
from storage.drivers import Result
from storage.errors import InvalidSetting, LedgerUnavailable
from storage.statements import Link
from tests.postgres import PostgresServer
from tests.pricing.ledger_world import TOKEN, World, quick, used

Step = Callable[[], Awaitable[None]]


async def outlive(world: World, ledger: Ledger, away: Step, back: Step) -> None:
    """Requests that run when the database goes away finish, and are charged once it is back."""
    key = (await world.key(Limit(LimitKind.TOTAL, Picodollars(100 * TOKEN)))).key
    running = [ledger.reserve(world.request(key, 10)) for _ in range(5)]
    await asyncio.gather(*(one.stands() for one in running))
    await away()
    assert running[0].settle(used(8), Outcome.FINISHED) == 9 * TOKEN  # before anybody knows that it is away
    refused = 0
    async with asyncio.timeout(30):
        while ledger.available:
            with pytest.raises(LedgerUnavailable) as caught:  # nothing is served uncharged
                await ledger.reserve(world.request(key, 10)).stands()
            refused += 1
            assert caught.value.retry_after_s > 0
    with pytest.raises(LedgerUnavailable):
        ledger.reserve(world.request(key, 10))
    for one in running[1:]:
        one.observe(used(4))
        assert one.settle(used(8), Outcome.FINISHED) == 9 * TOKEN
    with pytest.raises(LedgerUnavailable):
        await ledger.flush()
    assert ledger.unsettled == 5
    await back()
    async with asyncio.timeout(30):
        while not ledger.available:
            await asyncio.sleep(0.01)
    await ledger.flush()
    assert ledger.unsettled == 0
    assert (await world.entry_sums(key.id))[1] == 45 * TOKEN
    balance = await world.keys.balance(key.id)
    assert (balance.spent, balance.reserved) == (45 * TOKEN, 0)  # those that were refused hold nothing
    with pytest.raises(InsufficientFunds):
        await ledger.reserve(world.request(key, 56)).stands()
    await ledger.reserve(world.request(key, 55)).stands()


@pytest.mark.parametrize("fresh_url", ["postgresql"], indirect=True)
async def test_postgresql_stopped_and_started_under_load(world: World, postgres: PostgresServer) -> None:
    async def stop() -> None:
        await asyncio.to_thread(postgres.stop)

    async def start() -> None:
        await asyncio.to_thread(postgres.start)

    async with world.ledger() as ledger:
        await outlive(world, ledger, stop, start)


@pytest.mark.parametrize("fresh_url", ["sqlite"], indirect=True)
async def test_a_full_disk_under_sqlite(world: World) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def fill() -> None:  # no file of this process may grow beyond this: writes fail as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))

    async def free() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    try:
        async with world.ledger() as ledger:
            await outlive(world, ledger, fill, free)
    finally:
        await free()


@pytest.mark.parametrize("fresh_url", ["postgresql"], indirect=True)
async def test_connections_cut_while_idle_refuse_nobody(world: World, postgres: PostgresServer) -> None:
    key = (await world.key()).key
    async with world.ledger(heartbeat_ms=60_000, lease_ms=600_000) as ledger:
        await ledger.reserve(world.request(key, 1)).stands()
        await postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'")
        await asyncio.gather(*(ledger.reserve(world.request(key, 1)).stands() for _ in range(20)))
        assert ledger.available


class LosesAnswers(Database):
    """A database that commits, and whose answer is then lost, as often as told."""

    lost_answers = 0

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        async with super().write() as connection:
            yield connection
        self._lose()

    async def transact(self, work: Callable[[Link], Result]) -> Result:
        result = await super().transact(work)
        self._lose()
        return result

    def _lose(self) -> None:
        if self.lost_answers:
            self.lost_answers -= 1
            raise LedgerUnavailable("the answer was lost")


async def test_a_commit_without_an_answer_reserves_nothing_and_charges_once(world: World) -> None:
    key = (await world.key()).key
    database = await LosesAnswers.open(world.url)
    assert isinstance(database, LosesAnswers)
    # A heartbeat would lose the answer that is meant for a commit.
    ledger = await Ledger.open(database, quick(clock=world.clock, heartbeat_ms=100_000, lease_ms=400_000))
    first = ledger.reserve(world.request(key, 10))
    await first.stands()

    database.lost_answers = 1
    first.settle(used(4), Outcome.FINISHED)
    async with asyncio.timeout(10):
        while ledger.unsettled or not ledger.available:
            await asyncio.sleep(0.01)
    assert await world.entry_sums(key.id) == (1, 5 * TOKEN)
    assert ledger.overtaken == 0

    database.lost_answers = 1
    with pytest.raises(LedgerUnavailable):  # it was written all the same, and is voided again
        await ledger.reserve(world.request(key, 10, "unanswered")).stands()
    async with asyncio.timeout(10):
        while await world.open_reservations() or not ledger.available:
            await asyncio.sleep(0.01)
    await ledger.flush()
    assert (await world.keys.balance(key.id)).reserved == 0
    assert await world.entry_sums(key.id) == (2, 5 * TOKEN)
    await ledger.close()
    await database.close()


async def forbid(world: World, table: str) -> None:
    """Make rows of the model "poison" impossible to insert."""
    async with world.database.write() as connection:
        if world.database.is_postgresql:
            await connection.execute(text(f"ALTER TABLE {table} ADD CONSTRAINT no_poison CHECK (model <> 'poison')"))
        else:
            await connection.execute(
                text(
                    f"CREATE TRIGGER no_poison BEFORE INSERT ON {table} WHEN new.model = 'poison' "
                    "BEGIN SELECT RAISE(ABORT, 'poison'); END"
                )
            )


async def allow(world: World, table: str) -> None:
    drop = (
        f"ALTER TABLE {table} DROP CONSTRAINT no_poison" if world.database.is_postgresql else "DROP TRIGGER no_poison"
    )
    async with world.database.write() as connection:
        await connection.execute(text(drop))


async def test_one_reservation_that_cannot_be_written_harms_no_other(world: World) -> None:
    key = (await world.key()).key
    await forbid(world, "reservations")
    async with world.ledger() as ledger:
        models = ["demo"] * 5 + ["poison"] + ["demo"] * 7
        claims = [ledger.reserve(world.request(key, 10, model=model)) for model in models]
        results = await asyncio.gather(*(claim.stands() for claim in claims), return_exceptions=True)
        assert [isinstance(result, LedgerUnavailable) for result in results] == [model == "poison" for model in models]
        assert ledger.available
        assert (await world.keys.balance(key.id)).reserved == 120 * TOKEN
        await allow(world, "reservations")


async def test_a_settlement_that_cannot_be_written_is_kept_and_tried_again(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger:
        claims = [ledger.reserve(world.request(key, 10, model=model)) for model in ("demo", "poison", "demo")]
        await asyncio.gather(*(claim.stands() for claim in claims))
        await forbid(world, "entries")
        for claim in claims:
            claim.settle(used(4), Outcome.FINISHED)
        async with asyncio.timeout(10):
            while ledger.unsettled != 1:
                await asyncio.sleep(0.01)
        assert await world.entry_sums(key.id) == (2, 10 * TOKEN)
        await allow(world, "entries")
        async with asyncio.timeout(10):
            while ledger.unsettled:
                await asyncio.sleep(0.01)
        assert await world.entry_sums(key.id) == (3, 15 * TOKEN)


async def test_closing_gives_up_after_a_stated_time_and_says_so(world: World, caplog: pytest.LogCaptureFixture) -> None:
    key = (await world.key()).key
    await forbid(world, "entries")
    async with world.ledger(close_ms_max=50) as ledger:
        reservation = ledger.reserve(world.request(key, 10, model="poison"))
        await reservation.stands()
        reservation.settle(used(4), Outcome.FINISHED)
    assert "1 settlements unwritten" in caplog.text


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "mysql://root:hunter2@db/x", "sqlite://", "sqlite:///:memory:", "sqlite:////no/such/folder/x.db"],
)
async def test_a_database_url_that_cannot_be_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        await Database.open(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2@127.0.0.1:1/x", "postgresql+asyncpg://u:hunter2@127.0.0.1:1/x"]
)
async def test_a_server_that_is_not_there_is_told_without_the_password(url: str) -> None:
    with pytest.raises(LedgerUnavailable, match="can't be reached") as caught:
        await Database.open(url)
    assert "hunter2" not in str(caught.value)


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("not a database " * 100)
    with pytest.raises(LedgerUnavailable, match="damaged"):
        await Database.open(f"sqlite:///{path}")


async def test_mistakes_in_sql_are_not_called_outages(world: World) -> None:
    with pytest.raises(Exception, match="no_such_table") as caught:
        async with world.database.read() as connection:
            await connection.execute(text("SELECT * FROM no_such_table"))
    assert unavailable_reason(caught.value) is None

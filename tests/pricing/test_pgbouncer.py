"""The ledger behind a PgBouncer, which gives each transaction whichever session is free."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pricing.balance import Limit, LimitKind
from pricing.errors import InsufficientFunds
from pricing.ledger import Ledger
from pricing.money import Picodollars
from pricing.reservation import Outcome
from storage.database import Database
from storage.errors import InvalidSetting
from storage.migrations import upgrade
from tests.pgbouncer import running_pgbouncer
from tests.postgres import PostgresServer
from tests.pricing.ledger_world import TOKEN, World, quick, used


@pytest.fixture(params=["transaction", "session"])
def pooled_url(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[str]:
    """An empty database behind a pooler."""
    direct = asyncio.run(postgres.copy("template0"))
    name = direct.rpartition("/")[2] if "?" not in direct else direct.partition("?")[0].rpartition("/")[2]
    with running_pgbouncer(direct, request.param) as url:
        yield f"{url}/{name}"


async def test_gateways_that_share_sessions_hold_one_budget_and_start_again(pooled_url: str) -> None:
    """Migrations, keys, group commits and queries of two gateways at a time, and a second start."""
    limit = Limit(LimitKind.TOTAL, Picodollars(100 * TOKEN))
    databases = [await Database.open(pooled_url) for _ in range(2)]
    await asyncio.gather(*(upgrade(database) for database in databases))
    world = World(databases[0], pooled_url)
    key = (await world.key(limit)).key
    for start in range(2):
        ledgers = [await Ledger.open(database, quick(clock=world.clock)) for database in databases]

        async def one(ledger: Ledger, tokens: int) -> int:
            try:
                reservation = ledger.reserve(world.request(key, tokens))
                await reservation.stands()
            except InsufficientFunds:
                return 0
            await world.keys.list()
            reservation.settle(used(tokens - 1), Outcome.FINISHED)
            return tokens

        wanted = [one(ledgers[number % 2], 5) for number in range(30)]
        spent = sum(await asyncio.gather(*wanted))
        assert spent == (100 if start == 0 else 0)
        for ledger in ledgers:
            assert ledger.available
            await ledger.close()
    balance = await world.keys.balance(key.id)
    assert (balance.spent, balance.reserved) == (100 * TOKEN, 0)
    for database in databases:
        await database.close()


async def test_the_limits_of_time_hold_within_each_transaction(pooled_url: str) -> None:
    database = await Database.open(pooled_url)
    for _ in range(3):
        async with database.write() as connection:
            assert (await connection.exec_driver_sql("SHOW lock_timeout")).scalar_one() == "2s"
    await database.close()


@pytest.mark.parametrize("pooled_url", ["transaction"], indirect=True)
async def test_options_that_the_pooler_does_not_pass_on_are_named(pooled_url: str) -> None:
    with pytest.raises(InvalidSetting, match="The pooler in front of the database takes no `options`"):
        await Database.open(f"{pooled_url}?options=-c%20work_mem%3D8MB")


@pytest.mark.parametrize("pooled_url", ["statement"], indirect=True)
async def test_a_pooler_without_transactions_is_refused(pooled_url: str) -> None:
    with pytest.raises(InvalidSetting, match="pool_mode to transaction or session"):
        await Database.open(pooled_url)


@pytest.mark.parametrize("switch", ["pgbouncer=true", "statement_cache_size=0", "prepared_statement_cache_size=0"])
async def test_a_url_may_say_that_there_is_a_pooler(postgres: PostgresServer, switch: str) -> None:
    direct = await postgres.copy("template_farebox")
    database = await Database.open(f"{direct}{'&' if '?' in direct else '?'}{switch}")
    world = World(database, direct)
    key = (await world.key()).key
    async with world.ledger() as ledger:
        await ledger.reserve(world.request(key, 1)).stands()
    async with database.read() as connection:
        named = "SELECT count(*) FROM pg_prepared_statements"
        assert (await connection.exec_driver_sql(named)).scalar_one() == 0
    await database.close()

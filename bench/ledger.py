"""The ledger alone: how many requests a second it settles, and what a reservation adds to a request.

    python -m bench.ledger                      SQLite and PostgreSQL, some seconds each
    python -m bench.ledger --limits 8           the same with eight limits for each account and key
    python -m bench.ledger --mixed --seconds 600    two processes on one PostgreSQL, keys and accounts all mixed up

A request here is `reserve`, `stands`, one count, `settle`. What it adds is the time from `reserve` to `stands`: the
engine prefills meanwhile.
"""

import argparse
import asyncio
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import percentile
from bench.run import postgres
from pricing.accounts import Accounts
from pricing.balance import Limit, LimitKind
from pricing.cost import Tokens
from pricing.keys import Key, Keys, KeyTerms
from pricing.ledger import Ledger
from pricing.money import Picodollars, parse_usd
from pricing.price import Price
from pricing.reservation import Outcome, ReserveRequest
from storage.database import Database
from storage.errors import LedgerError
from storage.migrations import upgrade

PROCESSES = 2


@dataclass(slots=True)
class Tally:
    """What one process saw. `waits` in seconds, from `reserve` to `stands`."""

    settled: int = 0
    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        per_second = self.settled / self.seconds if self.seconds else 0
        median, p99 = (percentile(self.waits, percent) * 1e3 for percent in (50, 99))
        wrong = ", ".join(f"{count} {name}" for name, count in self.errors.items()) or "no error"
        return f"{per_second:7,.0f} settled/s, reserve to stands {median:.1f} ms median, {p99:.1f} ms p99; {wrong}"


ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "UTC",
    "Asia/Tokyo",
    "Africa/Cairo",
)


def key_limits(count: int) -> tuple[Limit, ...]:
    """So many limits that never fill: one per month, and days of other zones."""
    amount = parse_usd("90000")
    return (Limit(LimitKind.MONTH, amount), *(Limit(LimitKind.DAY, amount, zone) for zone in ZONES))[:count]


async def prepare(url: str, accounts: int, keys_each: int, limits: int) -> None:
    """Prepaid accounts with keys that have monthly limits: every check and every lock is used."""
    database = await Database.open(url)
    await upgrade(database)
    credit = Limit(LimitKind.PREPAID, parse_usd("100000"))
    for number in range(accounts):
        more = key_limits(limits)[1:]
        account = await Accounts(database).create(f"bench-{number}", credit, *more, actor="bench")
        for each in range(keys_each):
            await Keys(database).create(account.id, f"key-{each}", KeyTerms(key_limits(limits)), actor="bench")
    await database.close()


async def drive(url: str, concurrent: int, seconds: float, seed: int) -> Tally:
    """`concurrent` callers, each one request after the other, for that long."""
    tally, rng = Tally(), random.Random(seed)
    database = await Database.open(url)
    keys = [key for key in await Keys(database).list() if key.role == "user"]
    ledger = await Ledger.open(database)
    started = time.perf_counter()
    until = started + seconds

    async def caller(number: int) -> None:
        count = 0
        while time.perf_counter() < until:
            count += 1
            await _request(ledger, rng.choice(keys), f"bench-{seed}-{number}-{count}", tally)

    await asyncio.gather(*(caller(number) for number in range(concurrent)))
    await ledger.flush()
    tally.seconds = time.perf_counter() - started
    await ledger.close()
    await database.close()
    return tally


async def _request(ledger: Ledger, key: Key, request_id: str, tally: Tally) -> None:
    price = Price(Picodollars(590_000), Picodollars(790_000), Picodollars(590_000))
    request = ReserveRequest(request_id, key, "bench", price, 100, 200, "/v1/chat/completions", time.time_ns() // 10**6)
    started = time.perf_counter()
    try:
        reservation = ledger.reserve(request)
        await reservation.stands()
    except LedgerError as error:
        tally.errors[type(error).__name__] += 1
        return
    tally.waits.append(time.perf_counter() - started)
    reservation.settle(Tokens(prompt=100, cached=0, completion=150), Outcome.FINISHED)
    tally.settled += 1


def _process(url: str, concurrent: int, seconds: float, seed: int) -> Tally:
    return asyncio.run(drive(url, concurrent, seconds, seed))


def alone(name: str, url: str, concurrent: int, seconds: float, limits: int) -> str:
    asyncio.run(prepare(url, accounts=4, keys_each=4, limits=limits))
    tally = asyncio.run(drive(url, concurrent, seconds, seed=0))
    return f"{name:12}{tally.line()}"


def mixed(url: str, concurrent: int, seconds: float, limits: int) -> str:
    """Processes that reserve and settle on the same few rows, in whatever order. A deadlock would show as an error."""
    asyncio.run(prepare(url, accounts=3, keys_each=5, limits=limits))
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        orders = [(url, concurrent, seconds, seed) for seed in range(PROCESSES)]
        tallies = pool.starmap(_process, orders)
    deadlocks = asyncio.run(_deadlocks(url))
    lines = [f"process {number}: {tally.line()}" for number, tally in enumerate(tallies)]
    return "\n".join([*lines, f"deadlocks that PostgreSQL counted: {deadlocks}"])


async def _deadlocks(url: str) -> int:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return int(
            await connection.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        )
    finally:
        await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10, help="of load on each database. Default: 10.")
    parser.add_argument("--concurrent", type=int, default=256, help="requests at a time in a process. Default: 256.")
    parser.add_argument("--mixed", action="store_true", help=f"{PROCESSES} processes on one PostgreSQL")
    parser.add_argument("--limits", type=int, default=1, help="of each account and key, 1 to 8. Default: 1.")
    options = parser.parse_args()
    if options.mixed:
        with postgres() as url:
            print(mixed(url, options.concurrent, options.seconds, options.limits))
        return
    with tempfile.TemporaryDirectory(prefix="farebox-bench-") as folder:
        url = f"sqlite:///{Path(folder) / 'farebox.db'}"
        print(alone("SQLite", url, options.concurrent, options.seconds, options.limits), flush=True)
    with postgres() as url:
        print(alone("PostgreSQL", url, options.concurrent, options.seconds, options.limits), flush=True)


if __name__ == "__main__":
    main()

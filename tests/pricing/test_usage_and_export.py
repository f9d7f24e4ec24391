"""What was spent: totals, single requests, exports; and old entries that go without changing a total."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest
from pyarrow import parquet
from sqlalchemy import text

from pricing.clock import month_start, next_month_start
from pricing.errors import MissingPackage
from pricing.export import COLUMNS, EVERYTHING, ExportFilter, export_csv, export_parquet
from pricing.key import Key
from pricing.ledger import Ledger
from pricing.reservation import Outcome
from pricing.retention import make_partitions, remove_old_entries
from pricing.usage import Usage
from tests.pricing.ledger_world import DAY, NOON, TOKEN, World, used


async def spend(world: World, ledger: Ledger, key: Key, tokens: int, **changes: Any) -> None:
    reservation = ledger.reserve(world.request(key, 100, **changes))
    await reservation.stands()
    reservation.settle(used(tokens - 1), Outcome.FINISHED)
    await ledger.flush()


@pytest.fixture
async def two_keys(world: World) -> AsyncIterator[tuple[Key, Key]]:
    """Two days of spending: 10 and 20 tokens on "demo", 40 on "big" by one key; 80 by another account's."""
    one, two = (await world.key()).key, (await world.key()).key
    async with world.ledger() as ledger:
        await spend(world, ledger, one, 10)
        world.clock.at += DAY
        await spend(world, ledger, one, 20)
        await spend(world, ledger, one, 40, model="big")
        await spend(world, ledger, two, 80)
        yield one, two


async def test_totals_by_any_dimension(world: World, two_keys: tuple[Key, Key]) -> None:
    one, two = two_keys
    usage = Usage(world.database)

    async def costs(*by: str, **only: object) -> dict[tuple[object, ...], int]:
        rows = await usage.totals(by, **only)  # type: ignore[arg-type]
        fields = {"day": "day", "account": "account_id", "key": "key_id", "model": "model"}
        return {tuple(getattr(row, fields[name]) for name in by): row.cost // TOKEN for row in rows}

    assert await costs() == {(): 150}
    assert await costs("day") == {("2026-11-20",): 10, ("2026-11-21",): 140}
    assert await costs("key", "model") == {(one.id, "big"): 40, (one.id, "demo"): 30, (two.id, "demo"): 80}
    assert await costs("account") == {(one.account_id,): 70, (two.account_id,): 80}
    assert await costs("day", key_id=one.id, model="demo") == {("2026-11-20",): 10, ("2026-11-21",): 20}
    assert await costs(account_id=two.account_id) == {(): 80}
    assert await costs(since=date(2026, 11, 21)) == {(): 140}
    assert await costs(until=date(2026, 11, 20)) == {(): 10}
    assert await costs(key_id=99) == {(): 0}
    (total,) = await usage.totals()
    assert (total.requests, total.tokens) == (4, used(146, prompt=4))


async def test_a_request_is_shown_to_its_own_key_and_account_only(world: World) -> None:
    one, two = (await world.key()).key, (await world.key()).key
    usage = Usage(world.database)
    async with world.ledger() as ledger:
        await spend(world, ledger, one, 10, request_id="mine", user="ada")
        for only in ({}, {"key_id": one.id}, {"account_id": one.account_id}):
            record = await usage.request("mine", **only)
            assert record is not None
            assert (record.user, record.key_id) == ("ada", one.id)
        for other in ({"key_id": two.id}, {"account_id": two.account_id}):
            assert await usage.request("mine", **other) is None
        assert await usage.request("unknown") is None


async def read_csv(world: World, which: ExportFilter = EVERYTHING) -> list[dict[str, str]]:
    whole = b"".join([chunk async for chunk in export_csv(world.database, which)])
    return list(csv.DictReader(io.StringIO(whole.decode("utf-8"))))


async def test_csv_holds_every_entry_exactly(world: World, two_keys: tuple[Key, Key]) -> None:
    one, two = two_keys
    rows = await read_csv(world, ExportFilter(page=3))  # so that there is more than one page
    assert tuple(rows[0]) == COLUMNS
    assert sorted(int(row["cost"]) // TOKEN for row in rows) == [10, 20, 40, 80]
    assert rows[0]["cost_usd"] == "0.00001"
    assert rows[0]["settled_time"] == "2026-11-20T12:00:00.000Z"
    assert {row["key_id"] for row in await read_csv(world, ExportFilter(key_id=two.id))} == {str(two.id)}
    assert len(await read_csv(world, ExportFilter(account_id=one.account_id))) == 3
    assert len(await read_csv(world, ExportFilter(until=NOON + DAY))) == 1
    assert len(await read_csv(world, ExportFilter(since=NOON + DAY))) == 3
    assert await read_csv(world, ExportFilter(since=NOON + 2 * DAY)) == []


async def test_a_csv_cell_from_a_client_is_no_formula(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger:
        await spend(world, ledger, key, 1, user='=HYPERLINK("http://example.com")')
        await spend(world, ledger, key, 1, user='a "quoted", name\n')
    assert {row["end_user"] for row in await read_csv(world)} == {
        """'=HYPERLINK("http://example.com")""",
        'a "quoted", name\n',
    }


async def test_parquet_holds_the_same(world: World, two_keys: tuple[Key, Key]) -> None:
    target = io.BytesIO()
    assert await export_parquet(world.database, target) == 4
    table = parquet.read_table(target)
    assert tuple(table.column_names) == COLUMNS
    rows = [{name: "" if value is None else str(value) for name, value in row.items()} for row in table.to_pylist()]
    assert rows == await read_csv(world)


async def test_parquet_without_pyarrow_says_what_to_install(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackage, match=r"farebox\[parquet\]"):
        await export_parquet(world.database, io.BytesIO())


async def test_old_entries_go_and_totals_stay(world: World, two_keys: tuple[Key, Key]) -> None:
    usage = Usage(world.database)
    before = await usage.totals(["day", "key", "model"])
    next_year = NOON + 366 * DAY
    await make_partitions(world.database, next_year)
    assert await remove_old_entries(world.database, 400, next_year) == 0
    assert len(await read_csv(world)) == 4
    removed = await remove_old_entries(world.database, 30, next_year)
    assert removed is not None
    assert removed > 0
    assert await read_csv(world) == []
    assert await usage.totals(["day", "key", "model"]) == before
    assert (await world.keys.balance(two_keys[0].id)).spent_total == 70 * TOKEN


async def test_the_ledger_removes_old_entries_by_itself(world: World) -> None:
    key = (await world.key()).key
    async with world.ledger() as ledger:
        await spend(world, ledger, key, 10)
    world.clock.at += 90 * DAY
    async with world.ledger(entry_days=30):
        assert await read_csv(world) == []


@pytest.mark.parametrize("fresh_url", ["postgresql"], indirect=True)
async def test_entries_are_partitioned_by_utc_month_ahead_of_time(world: World) -> None:
    key = (await world.key()).key
    moments = [month_start(NOON), next_month_start(NOON) - 1, next_month_start(NOON), NOON + 1000 * DAY]
    async with world.ledger() as ledger:
        for moment in moments:
            world.clock.at = moment
            await spend(world, ledger, key, 1)
    async with world.database.read() as connection:
        rows = await connection.execute(
            text("SELECT tableoid::regclass::text, settled_at FROM entries ORDER BY settled_at")
        )
        found = [tuple(row) for row in rows]
    names = ["entries_2026_11", "entries_2026_11", "entries_2026_12", "entries_default"]
    assert found == list(zip(names, moments, strict=True))

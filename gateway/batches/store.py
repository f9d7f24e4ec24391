"""The rows of batches. Of several processes the one that holds a batch's lease works on it, and each change of it names
who makes it; a line's result is written once, whoever wrote it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, Select, and_, case, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.batches.batch import OPEN, Batch, Result, Status, Tally
from gateway.batches.tables import SUMS, batches, results
from gateway.files.files import Order, beyond
from pricing import tables as ledger
from pricing.clock import Clock, system_clock
from pricing.cost import Tokens
from pricing.errors import Overtaken
from pricing.money import Picodollars
from storage.database import Database

_B, _R = batches, results
SUCCESS_END = 400
PLAIN = tuple(name for name in Batch.__dataclass_fields__ if name not in ("tally", "status"))
DELETED_AT_ONCE = 2_000


class BatchStore:
    """All methods raise LedgerUnavailable while the database is away."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self._database = database
        self.now = clock

    async def add(self, batch: Batch) -> None:
        values = {name: getattr(batch, name) for name in PLAIN} | _columns(batch.tally)
        async with self._database.write() as connection:
            row = {**values, "status": batch.status.value, "owner": None, "lease_until": 0}
            await connection.execute(insert(_B).values(row))

    async def get(self, batch_id: str, account_id: int | None = None, dialect: str | None = None) -> Batch | None:
        """With its tally as it is now."""
        query = select(_B).where(_B.c.id == batch_id)
        if account_id is not None:
            query = query.where(_B.c.account_id == account_id)
        if dialect is not None:
            query = query.where(_B.c.dialect == dialect)
        found = await self._read(query)
        return found[0] if found else None

    async def page(
        self,
        account_id: int | None,
        *,
        after: Batch | None,
        count: int,
        order: Order = "desc",
        dialect: str | None = None,
    ) -> Sequence[Batch]:
        """By when they were made, from the one after `after`; all accounts' where none is named."""
        query = select(_B)
        if account_id is not None:
            query = query.where(_B.c.account_id == account_id)
        if dialect is not None:
            query = query.where(_B.c.dialect == dialect)
        if after is not None:
            query = query.where(beyond(_B.c.created_at, _B.c.id, after.created_at, after.id, order))
        columns = (_B.c.created_at, _B.c.id)
        ordered = query.order_by(*(column.asc() if order == "asc" else column.desc() for column in columns))
        return await self._read(ordered.limit(count))

    async def _read(self, query: Select[Any]) -> list[Batch]:
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
            running = [row.id for row in rows if row.status in OPEN]
            tallies = await _tallies(connection, running) if running else {}
        return [_batch(row, tallies.get(row.id)) for row in rows]

    async def open_of(self, account_id: int) -> int:
        """How many batches of an account haven't ended."""
        query = select(func.count()).where(_B.c.account_id == account_id, _B.c.status.in_(OPEN))
        async with self._database.read() as connection:
            return int(await connection.scalar(query) or 0)

    async def open_batches(self) -> Sequence[Batch]:
        """Everybody's that haven't ended, for the metrics."""
        return await self._read(select(_B).where(_B.c.status.in_(OPEN)))

    async def free(self, count: int) -> Sequence[str]:
        """The ids of batches that nobody works on, the oldest first: new ones, and those whose process is gone."""
        gone = _B.c.owner.not_in(select(ledger.processes.c.id))
        query = (
            select(_B.c.id)
            .where(_B.c.status.in_(OPEN), or_(_B.c.owner.is_(None), _B.c.lease_until < self.now(), gone))
            .order_by(_B.c.created_at)
            .limit(count)
        )
        async with self._database.read() as connection:
            return list(await connection.scalars(query))

    async def claim(self, batch_id: str, owner: str, lease_ms: int) -> bool:
        """Begin to work on it. False if another process was faster."""
        gone = _B.c.owner.not_in(select(ledger.processes.c.id))
        mine = and_(
            _B.c.id == batch_id,
            _B.c.status.in_(OPEN),
            or_(_B.c.owner.is_(None), _B.c.lease_until < self.now(), gone),
        )
        return await self._changed(mine, owner=owner, lease_until=self.now() + lease_ms)

    async def renew(self, batch_id: str, owner: str, lease_ms: int) -> Status | None:
        """Keep the lease, and learn the batch's status. None where it is another's, or has ended."""
        query = (
            update(_B)
            .where(_B.c.id == batch_id, _B.c.owner == owner, _B.c.status.in_(OPEN))
            .values(lease_until=self.now() + lease_ms)
            .returning(_B.c.status)
        )
        async with self._database.write() as connection:
            found = await connection.scalar(query)
        return None if found is None else Status(found)

    async def release(self, batch_id: str, owner: str) -> None:
        """Let another process go on at once."""
        await self._changed(and_(_B.c.id == batch_id, _B.c.owner == owner), owner=None, lease_until=0)

    async def move(self, batch_id: str, owner: str, before: Status, after: Status, **values: object) -> bool:
        """From one status to the next. False where it isn't in the first, or is another's."""
        mine = and_(_B.c.id == batch_id, _B.c.owner == owner, _B.c.status == before.value)
        return await self._changed(mine, status=after.value, **values)

    async def cancel(self, batch_id: str, account_id: int | None) -> bool:
        """Ask whoever works on it to stop. False where it has ended, or is stopping already."""
        mine = and_(_B.c.id == batch_id, _B.c.status.in_((Status.VALIDATING.value, Status.IN_PROGRESS.value)))
        if account_id is not None:
            mine = and_(mine, _B.c.account_id == account_id)
        return await self._changed(mine, status=Status.CANCELLING.value, cancelling_at=self.now())

    async def delete(self, batch_id: str, account_id: int) -> bool:
        """Forget one that has ended."""
        ended = _B.c.status.not_in(OPEN)
        query = delete(_B).where(_B.c.id == batch_id, _B.c.account_id == account_id, ended)
        async with self._database.write() as connection:
            return bool((await connection.execute(query)).rowcount)

    async def done(self, batch_id: str) -> set[int]:
        """The numbers of the lines that have their results."""
        query = select(_R.c.line).where(_R.c.batch_id == batch_id)
        async with self._database.read() as connection:
            return set(await connection.scalars(query))

    async def write(self, batch_id: str, result: Result, charged: Tokens | None = None) -> None:
        """A line's result, and in the same transaction what the ledger is to charge if this process dies now.

        Raises Overtaken where the line has a result already, or its request was settled by another process.
        """
        row = {name: getattr(result, name) for name in Result.__dataclass_fields__ if name != "tally"}
        counted = {name: getattr(result.tally, name) for name in SUMS}
        open_ones = ledger.reservations
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(_R).values(batch_id=batch_id, **row, **counted))
                if charged is not None:
                    kept = update(open_ones).where(open_ones.c.request_id == result.request_id)
                    tokens = {
                        "prompt_tokens": charged.prompt,
                        "cached_tokens": charged.cached,
                        "completion_tokens": charged.completion,
                    }
                    if not (await connection.execute(kept.values(tokens))).rowcount:
                        raise Overtaken(result.request_id)
        except IntegrityError:
            raise Overtaken(result.request_id) from None

    async def results(self, batch_id: str, after: int, count: int) -> Sequence[Result]:
        """In the order of their lines, from the one after `after`."""
        query = select(_R).where(_R.c.batch_id == batch_id, _R.c.line > after).order_by(_R.c.line).limit(count)
        async with self._database.read() as connection:
            return [
                Result(row.line, row.custom_id, row.request_id, row.status, row.body, _tally(row._mapping))
                for row in await connection.execute(query)
            ]

    async def tally(self, batch_id: str) -> Tally:
        async with self._database.read() as connection:
            return (await _tallies(connection, [batch_id])).get(batch_id, Tally())

    async def end(
        self, connection: AsyncConnection, batch_id: str, owner: str, status: Status, values: Mapping[str, object]
    ) -> bool:
        """In the caller's transaction: it has ended. False where it is another's."""
        mine = and_(_B.c.id == batch_id, _B.c.owner == owner, _B.c.status.in_(OPEN))
        ended = update(_B).where(mine).values(status=status.value, owner=None, lease_until=0, **values)
        return bool((await connection.execute(ended)).rowcount)

    async def forget_results(self, batch_id: str) -> None:
        """Take away the rows of a batch that has ended, whose files hold them."""
        some = select(_R.c.line).where(_R.c.batch_id == batch_id).limit(DELETED_AT_ONCE)
        gone = DELETED_AT_ONCE
        while gone == DELETED_AT_ONCE:
            async with self._database.write() as connection:
                query = delete(_R).where(_R.c.batch_id == batch_id, _R.c.line.in_(some.scalar_subquery()))
                gone = (await connection.execute(query)).rowcount

    async def _changed(self, which: Any, **values: object) -> bool:
        async with self._database.write() as connection:
            return bool((await connection.execute(update(_B).where(which).values(values))).rowcount)


async def _tallies(connection: AsyncConnection, batch_ids: Sequence[str]) -> dict[str, Tally]:
    completed = func.sum(case((_R.c.status < SUCCESS_END, 1), else_=0))
    query = (
        select(
            _R.c.batch_id,
            completed.label("completed"),
            (func.count() - completed).label("failed"),
            *(func.sum(_R.c[name]).label(name) for name in SUMS),
        )
        .where(_R.c.batch_id.in_(batch_ids))
        .group_by(_R.c.batch_id)
    )
    return {row.batch_id: _tally(row._mapping) for row in await connection.execute(query)}


def _columns(tally: Tally) -> dict[str, int]:
    return {name: getattr(tally, name) for name in Tally.__dataclass_fields__}


def _tally(row: Mapping[Any, Any]) -> Tally:
    counts = {name: int(row.get(name) or 0) for name in Tally.__dataclass_fields__}  # PostgreSQL's sums are NUMERICs
    cost = Picodollars(counts.pop("cost"))
    return Tally(**counts, cost=cost)


def _batch(row: Row[Any], tally: Tally | None) -> Batch:
    plain = {name: row._mapping[name] for name in PLAIN}
    return Batch(**plain, status=Status(row.status), tally=tally or _tally(row._mapping))

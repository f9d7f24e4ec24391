"""The table `adapters`: LoRA adapters that were added while the gateway ran.

    loading ──► ready ──► (removed)

A row is `loading` while the process that adds it tries the adapter on its engine; the others take those that are
`ready`. Its id is never used again, so it tells one adapter from the next of the same name.
"""

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, String, Table, Text, delete, func, insert, select, update

from gateway.models.adapter_cards import AdapterCard
from pricing.audit import change, record_change
from pricing.clock import Clock, system_clock
from pricing.errors import DuplicateName
from storage.database import Database
from storage.schema import Id, metadata

LOADING_MS_MAX = 600_000  # a process that loads an adapter for longer has died

adapters = Table(
    "adapters",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("card", Text, nullable=False),
    Column("account_id", BigInteger),
    Column("state", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

_T = adapters


@dataclass(frozen=True, slots=True)
class AddedAdapter:
    """One that is served. `account_id` is whose alone it is; `created_at` in milliseconds since 1970 UTC."""

    id: int
    card: AdapterCard
    account_id: int | None
    created_at: int


class AdapterStore:
    """All methods raise LedgerUnavailable while the database is away."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self._database = database
        self._clock = clock

    async def state(self) -> tuple[int, int]:
        """Differs whenever the served adapters do: how many there are, and the newest's id."""
        query = select(func.count(), func.coalesce(func.max(_T.c.id), 0)).where(_T.c.state == "ready")
        async with self._database.read() as connection:
            count, newest = (await connection.execute(query)).one()
        return count, newest

    async def ready(self) -> list[AddedAdapter]:
        """In the order in which they were added."""
        query = select(_T.c.id, _T.c.card, _T.c.account_id, _T.c.created_at)
        async with self._database.read() as connection:
            rows = await connection.execute(query.where(_T.c.state == "ready").order_by(_T.c.id))
            return [
                AddedAdapter(row.id, AdapterCard.model_validate_json(row.card), row.account_id, row.created_at)
                for row in rows
            ]

    async def begin(self, card: AdapterCard, account_id: int | None) -> AddedAdapter:
        """Take the name, and get the id. Raises DuplicateName."""
        now = self._clock()
        async with change(self._database) as (connection, _):
            lost = (_T.c.state == "loading") & (_T.c.created_at < now - LOADING_MS_MAX)
            await connection.execute(delete(_T).where(lost))
            if (await connection.execute(select(_T.c.id).where(_T.c.name == card.name))).first() is not None:
                raise DuplicateName(f'There is an adapter "{card.name}" already. Remove it first, or choose a name.')
            values = {"name": card.name, "card": card.model_dump_json(), "account_id": account_id}
            added = await connection.execute(
                insert(_T).values(**values, state="loading", created_at=now).returning(_T.c.id)
            )
            return AddedAdapter(added.scalar_one(), card, account_id, now)

    async def finish(self, added: AddedAdapter, *, actor: str) -> None:
        """It works: serve it everywhere."""
        async with change(self._database) as (connection, _):
            await connection.execute(update(_T).where(_T.c.id == added.id).values(state="ready"))
            await record_change(
                connection,
                at=self._clock(),
                actor=actor,
                action="adapter.add",
                account_id=added.account_id,
                changes={"name": (None, added.card.name), "adapter": (None, added.card.adapter)},
            )

    async def give_up(self, added: AddedAdapter) -> None:
        """It can't be served."""
        async with self._database.write() as connection:
            await connection.execute(delete(_T).where(_T.c.id == added.id))

    async def remove(self, id: int, *, actor: str) -> AddedAdapter | None:
        """Serve it no more, anywhere; None if there is none."""
        async with change(self._database) as (connection, _):
            found = delete(_T).where(_T.c.id == id, _T.c.state == "ready")
            row = (await connection.execute(found.returning(_T.c.card, _T.c.account_id, _T.c.created_at))).first()
            if row is None:
                return None
            card = AdapterCard.model_validate_json(row.card)
            await record_change(
                connection,
                at=self._clock(),
                actor=actor,
                action="adapter.remove",
                account_id=row.account_id,
                changes={"name": (card.name, None)},
            )
            return AddedAdapter(id, card, row.account_id, row.created_at)

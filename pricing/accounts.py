"""Accounts: who pays. Each has limits (or prepaid credit, or none) that bound all its keys together."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pricing import tables
from pricing.audit import change, record_change
from pricing.balance import NO_LIMIT, Balance, Limit, LimitKind, checked_limits, limits_of, limits_text
from pricing.clock import Clock, system_clock
from pricing.errors import DuplicateName, UnknownAccount
from pricing.key import WEIGHT, WEIGHT_MAX
from pricing.money import PICODOLLARS_MAX, InvalidAmount, Picodollars, format_usd
from pricing.standing import balance_of, fresh_columns, replace_limits
from pricing.text import checked_name
from storage.database import Database, padded
from storage.errors import InvalidSetting


@dataclass(frozen=True, slots=True)
class Account:
    """One payer. Times are milliseconds since 1970 UTC. `weight` is its share of an engine that many want."""

    id: int
    name: str
    limits: tuple[Limit, ...]
    created_at: int
    suspended_at: int | None
    weight: int = WEIGHT

    @property
    def limit(self) -> Limit:
        """The only limit; NO_LIMIT where there is none, or several."""
        return self.limits[0] if len(self.limits) == 1 else NO_LIMIT


class Accounts:
    """All operations on accounts. Each change writes an audit row with its `actor` in the same transaction."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, name: str, *limits: Limit, actor: str) -> Account:
        """Make an account. Raises DuplicateName, InvalidSetting."""
        checked_name("name of an account", name)
        kept = checked_limits(limits, prepaid=True)
        now = self._clock()
        async with change(self._database) as (connection, _):
            await _require_free(connection, name)
            row = await connection.execute(
                insert(tables.accounts)
                .values(name=name, created_at=now, **fresh_columns(kept, now))
                .returning(tables.accounts.c.id)
            )
            account = Account(row.scalar_one(), name, kept, now, None)
            await record_change(
                connection,
                at=now,
                actor=actor,
                action="account.create",
                account_id=account.id,
                changes={"name": (None, name), "limits": (None, limits_text(kept))},
            )
            if credit := _credit_of(kept):
                await _append_credit(connection, account.id, credit, actor, None, now)
        return account

    async def get(self, account_id: int) -> Account:
        """One account. Raises UnknownAccount."""
        async with self._database.read() as connection:
            return _account(await _row(connection, account_id))

    async def find(self, name: str) -> Account | None:
        """The account of this name."""
        query = select(tables.accounts).where(tables.accounts.c.name == name)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return _account(row) if row else None

    async def list(self, *, after: int = 0, count_max: int = 1000) -> builtins.list[Account]:
        """Accounts in the order of their ids, from the one after `after`."""
        table = tables.accounts
        query = select(table).where(table.c.id > after).order_by(table.c.id).limit(count_max)
        async with self._database.read() as connection:
            return [_account(row) for row in await connection.execute(query)]

    async def balance(self, account_id: int) -> Balance:
        """Where it stands now. Raises UnknownAccount."""
        async with self._database.read() as connection:
            return balance_of(await _row(connection, account_id), self._clock())

    async def balances(self, account_ids: Sequence[int]) -> dict[int, Balance]:
        """Where several stand, by id."""
        if not account_ids:
            return {}
        query = select(tables.accounts).where(tables.accounts.c.id.in_(padded(account_ids)))
        async with self._database.read() as connection:
            return {row.id: balance_of(row, self._clock()) for row in await connection.execute(query)}

    async def count_spent(self, percent: int) -> int:
        """How many accounts have spent or reserved at least this much of one of their limits, in its period."""
        now, row = self._clock(), tables.accounts.c
        # How full a limit is falls only when a period ends: whoever isn't full by the last commit isn't now.
        query = select(tables.accounts).where(row.fullest >= percent, row.suspended_at.is_(None))
        async with self._database.read() as connection:
            return sum(balance_of(one, now).percent >= percent for one in await connection.execute(query))

    async def rename(self, account_id: int, name: str, *, actor: str) -> Account:
        """Raises UnknownAccount, DuplicateName, InvalidSetting."""
        checked_name("name of an account", name)
        async with change(self._database) as (connection, _):
            row = await _row(connection, account_id)
            if row.name != name:
                await _require_free(connection, name)
            await _set(connection, account_id, name=name)
            await self._record(connection, actor, "account.rename", account_id, name=(row.name, name))
            return _account(await _row(connection, account_id))

    async def set_limit(self, account_id: int, limit: Limit, *, actor: str) -> Balance:
        """Replace all limits by this one."""
        return await self.set_limits(account_id, [limit], actor=actor)

    async def set_limits(self, account_id: int, limits: Sequence[Limit], *, actor: str) -> Balance:
        """Replace the limits; what was spent in each new limit's period counts against it from now on.

        An account that becomes PREPAID starts with the limit's amount of credit and nothing spent. A limit below what
        is spent and reserved already stops new requests; running ones finish. Raises UnknownAccount, InvalidSetting.
        """
        kept = checked_limits(limits, prepaid=True)
        async with change(self._database) as (connection, _):
            before = _account(await _row(connection, account_id)).limits
            balance = await connection.run_sync(replace_limits, tables.accounts, account_id, kept, self._clock())
            changes = (limits_text(before), limits_text(kept))
            await self._record(connection, actor, "account.set_limit", account_id, limits=changes)
            return balance

    async def add_credit(
        self, account_id: int, amount: Picodollars, *, actor: str, reference: str | None = None
    ) -> Balance:
        """Add credit to a prepaid account. The same `reference` (a payment's id) adds it once only.

        Raises InvalidSetting where the account isn't prepaid or the reference was used for another amount,
        InvalidAmount where the amount isn't positive.
        """
        if amount <= 0:
            raise InvalidAmount(f"Credit of ${format_usd(amount)} can't be added; give a positive amount.")
        if reference is not None:
            checked_name("reference of a credit", reference)
        now = self._clock()
        async with change(self._database) as (connection, _):
            row = await _row(connection, account_id, lock=True)
            before = _account(row).limits
            prepaid = next((limit for limit in before if limit.kind is LimitKind.PREPAID), None)
            if prepaid is None:
                raise InvalidSetting(
                    f"Account {account_id} has the limits {limits_text(before)}; credit can be added to a prepaid "
                    "account only. Set a limit of kind prepaid first."
                )
            if await _credited(connection, account_id, amount, reference):
                return balance_of(row, now)
            if prepaid.amount + amount > PICODOLLARS_MAX:
                raise InvalidAmount(f"An account can't hold more than ${format_usd(PICODOLLARS_MAX)} of credit.")
            more = replace(prepaid, amount=Picodollars(prepaid.amount + amount))
            after = tuple(more if limit is prepaid else limit for limit in before)
            balance = await connection.run_sync(replace_limits, tables.accounts, account_id, after, now)
            await _append_credit(connection, account_id, amount, actor, reference, now)
            changes = (limits_text(before), limits_text(after))
            await self._record(connection, actor, "account.add_credit", account_id, limits=changes)
            return balance

    async def set_weight(self, account_id: int, weight: int, *, actor: str) -> Account:
        """Its share of an engine that many want, within 1 s on every replica. Raises UnknownAccount, InvalidSetting."""
        if not 1 <= weight <= WEIGHT_MAX:
            raise InvalidSetting(f"A weight of {weight} can't be; it is from 1 to {WEIGHT_MAX}, {WEIGHT} if not set.")
        async with change(self._database) as (connection, version):
            row = await _row(connection, account_id, lock=True)
            await _set(connection, account_id, weight=weight)
            keys = tables.keys
            await connection.execute(update(keys).where(keys.c.account_id == account_id).values(version=version))
            changes = (str(row.weight), str(weight))
            await self._record(connection, actor, "account.set_weight", account_id, weight=changes)
            return _account(await _row(connection, account_id))

    async def suspend(self, account_id: int, *, actor: str) -> Account:
        """Stop all its keys, within 1 s on every replica."""
        return await self._suspended(account_id, self._clock(), actor)

    async def resume(self, account_id: int, *, actor: str) -> Account:
        """Let its keys work again."""
        return await self._suspended(account_id, None, actor)

    async def _suspended(self, account_id: int, at: int | None, actor: str) -> Account:
        async with change(self._database) as (connection, version):
            row = await _row(connection, account_id, lock=True)
            if (row.suspended_at is None) != (at is None):
                await _set(connection, account_id, suspended_at=at)
                keys = tables.keys
                await connection.execute(update(keys).where(keys.c.account_id == account_id).values(version=version))
                action = "account.resume" if at is None else "account.suspend"
                await self._record(connection, actor, action, account_id)
            return _account(await _row(connection, account_id))

    async def _record(
        self,
        connection: AsyncConnection,
        actor: str,
        action: str,
        account_id: int,
        **changes: tuple[str, str],
    ) -> None:
        await record_change(
            connection, at=self._clock(), actor=actor, action=action, account_id=account_id, changes=changes
        )


def _account(row: Row[Any]) -> Account:
    return Account(row.id, row.name, limits_of(row.limits), row.created_at, row.suspended_at, row.weight)


def _credit_of(limits: Sequence[Limit]) -> Picodollars:
    return next((limit.amount for limit in limits if limit.kind is LimitKind.PREPAID), Picodollars(0))


async def _row(connection: AsyncConnection, account_id: int, *, lock: bool = False) -> Row[Any]:
    query = select(tables.accounts).where(tables.accounts.c.id == account_id)
    row = (await connection.execute(query.with_for_update(key_share=True) if lock else query)).one_or_none()
    if row is None:
        raise UnknownAccount(f"There is no account {account_id}. List the accounts to see which there are.")
    return row


async def _set(connection: AsyncConnection, account_id: int, **values: object) -> None:
    await connection.execute(update(tables.accounts).where(tables.accounts.c.id == account_id).values(**values))


async def _require_free(connection: AsyncConnection, name: str) -> None:
    if await connection.scalar(select(tables.accounts.c.id).where(tables.accounts.c.name == name)) is not None:
        raise DuplicateName(f"An account named {name!r} exists already; choose another name.")


async def _credited(connection: AsyncConnection, account_id: int, amount: int, reference: str | None) -> bool:
    if reference is None:
        return False
    table = tables.credits
    query = select(table.c.amount).where(table.c.account_id == account_id, table.c.reference == reference)
    earlier = await connection.scalar(query)
    if earlier is not None and earlier != amount:
        raise InvalidSetting(
            f"The reference {reference!r} was used to add ${format_usd(Picodollars(earlier))}; use another one."
        )
    return earlier is not None


async def _append_credit(
    connection: AsyncConnection, account_id: int, amount: int, actor: str, reference: str | None, now: int
) -> None:
    await connection.execute(
        insert(tables.credits).values(
            account_id=account_id, amount=amount, reference=reference, actor=actor, created_at=now
        )
    )

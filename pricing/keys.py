"""Keys: what a client shows. A key belongs to one account and may have limits of its own."""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pricing import tables
from pricing.audit import Change, change, record_change
from pricing.balance import Balance, limits_text
from pricing.clock import Clock, iso_time, system_clock
from pricing.errors import DuplicateName, UnknownAccount, UnknownKey
from pricing.key import Key, KeyTerms, NewKey, Role, key_of
from pricing.secret import check_registered, hash_secret, new_secret, prefix_of
from pricing.standing import balance_of, fresh_columns, replace_limits
from pricing.text import checked_name
from storage.database import Database, padded
from storage.errors import InvalidSetting

__all__ = ["Key", "KeyTerms", "Keys", "NewKey", "Role"]


class Keys:
    """All operations on keys. Each change writes an audit row with its `actor` in the same transaction."""

    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self,
        account_id: int,
        name: str,
        terms: KeyTerms = KeyTerms(),  # noqa: B008  (frozen)
        *,
        actor: str,
        role: Role = "user",
        secret: str | None = None,
    ) -> NewKey:
        """Make a key with a new secret, or register `secret` (any string of 24 to 512 visible ASCII characters).

        Raises UnknownAccount, DuplicateName (name or secret taken), InvalidSetting.
        """
        checked_name("name of a key", name)
        _check_terms(terms, None, self._clock())
        if secret is None:
            secret = new_secret()
        else:
            check_registered(secret)
        now = self._clock()
        async with change(self._database) as (connection, version):
            if await connection.scalar(select(tables.accounts.c.id).filter_by(id=account_id)) is None:
                raise UnknownAccount(f"There is no account {account_id} for the key; make the account first.")
            await _require_free(connection, account_id, name)
            await _require_new(connection, secret)
            values = {
                "account_id": account_id,
                "name": name,
                "prefix": prefix_of(secret),
                "role": role,
                "secret_hash": hash_secret(secret),
                "created_at": now,
                "version": version,
                **fresh_columns(terms.limits, now),
                **_term_columns(terms),
            }
            row = (await connection.execute(insert(tables.keys).values(values).returning(tables.keys))).one()
            key = key_of(row)
            created: dict[str, Change] = {
                term: (None, value) for term, value in {"name": name, "role": role, **_described(terms)}.items()
            }
            await self._record(connection, actor, "key.create", key, created)
        return NewKey(key, secret)

    async def get(self, key_id: int) -> Key:
        """One key. Raises UnknownKey."""
        async with self._database.read() as connection:
            return key_of(await _row(connection, key_id))

    async def list(
        self,
        *,
        account_id: int | None = None,
        prefix: str | None = None,
        include_revoked: bool = False,
        after: int = 0,
        count_max: int = 1000,
    ) -> builtins.list[Key]:
        """Keys in the order of their ids; `prefix` is the start of a secret, at most as long as `Key.prefix`."""
        table = tables.keys
        query = select(table).where(table.c.id > after).order_by(table.c.id).limit(count_max)
        if account_id is not None:
            query = query.where(table.c.account_id == account_id)
        if prefix is not None:  # not LIKE, which ignores case in SQLite
            query = query.where(func.substr(table.c.prefix, 1, len(prefix)) == prefix)
        if not include_revoked:
            query = query.where(table.c.revoked_at.is_(None))
        async with self._database.read() as connection:
            return [key_of(row) for row in await connection.execute(query)]

    async def by_secret(self, secret: str) -> Key | None:
        """The key of this secret, whatever its state; for bootstrapping, not for authentication."""
        async with self._database.read() as connection:
            row = await _row_of_secret(connection, secret)
        return key_of(row) if row else None

    async def balance(self, key_id: int) -> Balance:
        """Where it stands now. Raises UnknownKey."""
        async with self._database.read() as connection:
            return balance_of(await _row(connection, key_id), self._clock())

    async def balances(self, key_ids: Sequence[int]) -> dict[int, Balance]:
        """Where several stand, by id."""
        if not key_ids:
            return {}
        query = select(tables.keys).where(tables.keys.c.id.in_(padded(key_ids)))
        async with self._database.read() as connection:
            return {row.id: balance_of(row, self._clock()) for row in await connection.execute(query)}

    async def set_terms(self, key_id: int, terms: KeyTerms, *, actor: str) -> Key:
        """Replace all terms (use dataclasses.replace on the old ones). Raises UnknownKey, InvalidSetting.

        Of each new limit, what was spent in its period counts from now on.
        """
        async with change(self._database) as (connection, version):
            before = key_of(await _row(connection, key_id)).terms
            _check_terms(terms, before, self._clock())
            if terms.limits != before.limits:
                await connection.run_sync(replace_limits, tables.keys, key_id, terms.limits, self._clock())
            key = await _set(connection, key_id, version=version, **_term_columns(terms))
            old, new = _described(before), _described(terms)
            await self._record(connection, actor, "key.set_terms", key, {term: (old[term], new[term]) for term in new})
            return key

    async def rename(self, key_id: int, name: str, *, actor: str) -> Key:
        """Raises UnknownKey, DuplicateName, InvalidSetting."""
        checked_name("name of a key", name)
        async with change(self._database) as (connection, version):
            before = await _row(connection, key_id)
            if before.name != name:
                await _require_free(connection, before.account_id, name)
            key = await _set(connection, key_id, version=version, name=name)
            await self._record(connection, actor, "key.rename", key, {"name": (before.name, name)})
            return key

    async def rotate(self, key_id: int, *, grace_ms: int, actor: str) -> NewKey:
        """A new secret for the same key; the old one works for `grace_ms` more. One older still ends at once.

        Raises UnknownKey, InvalidSetting for a revoked key.
        """
        if grace_ms < 0:
            raise InvalidSetting(f"A grace period of {grace_ms} ms can't be; give 0 or more.")
        secret = new_secret()
        async with change(self._database) as (connection, version):
            before = await _row(connection, key_id)
            if before.revoked_at is not None:
                raise InvalidSetting(f"Key {key_id} is revoked and can't be rotated; create another key.")
            key = await _set(
                connection,
                key_id,
                version=version,
                prefix=prefix_of(secret),
                secret_hash=hash_secret(secret),
                previous_hash=before.secret_hash,
                previous_until=self._clock() + grace_ms,
            )
            changes = {"prefix": (before.prefix, key.prefix), "grace_ms": (None, grace_ms)}
            await self._record(connection, actor, "key.rotate", key, changes)
        return NewKey(key, secret)

    async def revoke(self, key_id: int, *, actor: str) -> Key:
        """End the key for good, within 1 s on every replica. Revoking twice changes nothing."""
        async with change(self._database) as (connection, version):
            before = await _row(connection, key_id)
            if before.revoked_at is not None:
                return key_of(before)
            key = await _set(connection, key_id, version=version, revoked_at=self._clock())
            await self._record(connection, actor, "key.revoke", key, {})
            return key

    async def _record(
        self, connection: AsyncConnection, actor: str, action: str, key: Key, changes: Mapping[str, Change]
    ) -> None:
        await record_change(
            connection,
            at=self._clock(),
            actor=actor,
            action=action,
            account_id=key.account_id,
            key_id=key.id,
            changes=changes,
        )


def _check_terms(terms: KeyTerms, before: KeyTerms | None, now: int) -> None:
    """What is new in them must make sense; what a key has already, it may keep."""
    for model in (terms.models or frozenset()) - ((before and before.models) or frozenset()):
        checked_name("name of a model", model, 256)
    ends = terms.expires_at
    if ends is not None and ends <= now and (before is None or ends != before.expires_at):
        raise InvalidSetting(f"The key would end at {iso_time(ends)}, which has passed; give a time that is to come.")


def _term_columns(terms: KeyTerms) -> dict[str, object]:
    columns = asdict(terms)
    del columns["limits"]
    columns["models"] = None if terms.models is None else json.dumps(sorted(terms.models))
    return columns


def _described(terms: KeyTerms) -> dict[str, object]:
    models = None if terms.models is None else sorted(terms.models)
    return {**_term_columns(terms), "models": models, "limits": limits_text(terms.limits)}


async def _row(connection: AsyncConnection, key_id: int) -> Row[Any]:
    row = (await connection.execute(select(tables.keys).filter_by(id=key_id))).one_or_none()
    if row is None:
        raise UnknownKey(f"There is no key {key_id}. List the keys to see which there are.")
    return row


async def _row_of_secret(connection: AsyncConnection, secret: str) -> Row[Any] | None:
    table, digest = tables.keys, hash_secret(secret)
    query = select(table).where(or_(table.c.secret_hash == digest, table.c.previous_hash == digest))
    return (await connection.execute(query)).one_or_none()


async def _set(connection: AsyncConnection, key_id: int, **values: object) -> Key:
    table = tables.keys
    changed = await connection.execute(update(table).filter_by(id=key_id).values(values).returning(table))
    return key_of(changed.one())


async def _require_free(connection: AsyncConnection, account_id: int, name: str) -> None:
    taken = select(tables.keys.c.id).filter_by(account_id=account_id, name=name, revoked_at=None)
    if await connection.scalar(taken) is not None:
        raise DuplicateName(f"The account has a key named {name!r} already; choose another name or revoke that one.")


async def _require_new(connection: AsyncConnection, secret: str) -> None:
    row = await _row_of_secret(connection, secret)
    if row is not None:
        raise DuplicateName(f"This secret is that of key {row.id} already; choose another one.")

"""One group commit: many reservations and settlements in one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import BindParameter, bindparam, delete, insert, select, union_all, update
from sqlalchemy.dialects import postgresql, sqlite

from pricing import tables
from pricing.clock import MS_PER_DAY, day_start
from pricing.errors import DuplicateRequest, Scope, UnknownKey
from pricing.periods import quarter_start
from pricing.reservation import Final as FinalState
from pricing.reservation import Outcome, Reservation
from pricing.standing import Standing, held_by_others, lock, write_back
from storage.database import Database, padded
from storage.errors import LedgerError, LedgerUnavailable, RowsLocked
from storage.statements import Link, PreparedChange, PreparedQuery, Row, dialect_of
from storage.text import stored

DUPLICATE_DAYS: Final = 2
"""For how long a request id can't be used again. Bounded, so that the look-up meets one or two partitions."""

_TEXT_MAX: Final = 256

# The statements of a group commit are built once: building one takes longer than running it.
_OPEN, _DONE, _USAGE = tables.reservations, tables.entries, tables.usage
_IDS: Final[BindParameter[Any]] = bindparam("ids", expanding=True)
_END: Final = PreparedQuery(delete(_OPEN).where(_OPEN.c.request_id.in_(_IDS)).returning(_OPEN))
_USED: Final = PreparedQuery(
    union_all(
        select(_OPEN.c.request_id).where(_OPEN.c.request_id.in_(_IDS)),
        select(_DONE.c.request_id).where(_DONE.c.request_id.in_(_IDS), _DONE.c.settled_at >= bindparam("since")),
    )
)
_RESERVE: Final = PreparedChange(insert(_OPEN))
_APPEND: Final = PreparedChange(insert(_DONE))
_OPEN_IDS: Final = PreparedQuery(select(_OPEN.c.request_id).where(_OPEN.c.request_id.in_(_IDS)))
_CHECKPOINT: Final = PreparedChange(update(_OPEN).where(_OPEN.c.request_id == bindparam("row_id")))


def _add_to_sums(upsert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    return upsert.on_conflict_do_update(
        index_elements=list(_USAGE.primary_key.columns),
        set_={name: _USAGE.c[name] + upsert.excluded[name] for name in tables.SUMS},
    )


# The two dialects spell this statement alike but don't share its class.
_ROLL_UP: Final = {
    "postgresql": PreparedChange(_add_to_sums(postgresql.insert(_USAGE))),
    "sqlite": PreparedChange(_add_to_sums(sqlite.insert(_USAGE))),
}


Place = tuple[Scope, int]
"""An account or a key, by its id."""


@dataclass(slots=True)
class Batch:
    """What to commit: ends first, so that the money they release is there for the claims."""

    finals: Sequence[FinalState] = ()
    claims: Sequence[Reservation] = ()

    def __len__(self) -> int:
        return len(self.finals) + len(self.claims)

    def places(self) -> set[Place]:
        """The accounts and keys that it touches."""
        parties = [(final.account_id, final.key_id) for final in self.finals]
        parties += [(claim.request.key.account_id, claim.request.key.id) for claim in self.claims]
        return {("account", account) for account, _ in parties} | {("key", key) for _, key in parties}

    def split(self, places: Collection[Place]) -> tuple[Batch, Batch]:
        """What touches none of these accounts and keys, and the rest."""
        if not places:
            return self, Batch()

        def touches(account_id: int, key_id: int) -> bool:
            return ("account", account_id) in places or ("key", key_id) in places

        finals: tuple[list[FinalState], list[FinalState]] = [], []
        for final in self.finals:
            finals[touches(final.account_id, final.key_id)].append(final)
        claims: tuple[list[Reservation], list[Reservation]] = [], []
        for claim in self.claims:
            claims[touches(claim.request.key.account_id, claim.request.key.id)].append(claim)
        return Batch(finals[0], claims[0]), Batch(finals[1], claims[1])


@dataclass(slots=True)
class Written:
    """What a commit did. `refusals` by request id; `ended` are the ids whose entry this commit appended; `reserved_at`
    is the time that the claims are charged at, by request id. `locked` are the accounts and keys that another process
    holds: whatever touches them was left out."""

    refusals: dict[str, LedgerError] = field(default_factory=dict)
    reserved_at: dict[str, int] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    accounts: dict[int, Standing] = field(default_factory=dict)
    keys: dict[int, Standing] = field(default_factory=dict)
    locked: set[Place] = field(default_factory=set)


async def commit(database: Database, process_id: str, batch: Batch, now: int, *, skip_locked: bool = False) -> Written:
    """Write the batch in one transaction.

    A failure before the COMMIT is sent has done nothing, so it is tried once more at once, on another connection: one
    that was cut while idle should refuse nobody. Where another process holds rows for too long, the second try leaves
    out what touches them; with `skip_locked` the first one does, without waiting. Raises LedgerUnavailable, after which
    the outcome may be unknown.
    """
    try:
        return await _commit_once(database, process_id, batch, now, skip_locked)
    except _NothingDone as nothing:
        try:
            skip_locked = skip_locked or isinstance(nothing.unavailable, RowsLocked)
            return await _commit_once(database, process_id, batch, now, skip_locked)
        except _NothingDone as again:
            raise again.unavailable from again


class _NothingDone(Exception):
    def __init__(self, unavailable: LedgerUnavailable) -> None:
        self.unavailable = unavailable


async def _commit_once(database: Database, process_id: str, batch: Batch, now: int, skip_locked: bool) -> Written:
    committing = False

    def work(connection: Link) -> Written:
        nonlocal committing
        written = apply(connection, process_id, batch, now, skip_locked=skip_locked)
        committing = True
        return written

    try:
        return await database.transact(work)
    except LedgerUnavailable as error:
        if committing:
            raise
        raise _NothingDone(error) from error


def apply(connection: Link, process_id: str, batch: Batch, now: int, *, skip_locked: bool = False) -> Written:
    """The statements of a batch, in the caller's transaction: lock, end, claim, write back."""
    places, written = batch.places(), Written()
    accounts = [row_id for scope, row_id in places if scope == "account"]
    keys = [row_id for scope, row_id in places if scope == "key"]
    written.accounts = lock(connection, tables.accounts, accounts, skip_locked=skip_locked)
    written.keys = lock(connection, tables.keys, keys, skip_locked=skip_locked)
    if skip_locked:
        held_accounts = held_by_others(connection, tables.accounts, accounts, written.accounts)
        held_keys = held_by_others(connection, tables.keys, keys, written.keys)
        written.locked = {("account", account) for account in held_accounts} | {("key", key) for key in held_keys}
        batch, _ = batch.split(written.locked)
    if batch.finals:
        _end(connection, batch.finals, written, now)
    if batch.claims:
        _claim(connection, process_id, batch.claims, written, now)
    write_back(connection, tables.accounts, written.accounts.values())
    write_back(connection, tables.keys, written.keys.values())
    return written


def _end(connection: Link, finals: Sequence[FinalState], written: Written, now: int) -> None:
    by_id = {final.request_id: final for final in finals}
    entries: list[dict[str, Any]] = []
    for row in _END.rows(connection, padded(list(by_id))):
        final = by_id[row.request_id]
        written.accounts[row.account_id].release(row.amount, final.cost, row.model, row.reserved_at)
        written.keys[row.key_id].release(row.amount, final.cost, row.model, row.reserved_at)
        written.ended.add(row.request_id)
        entries.append(_entry(row, final, now))
    if entries:
        _APPEND.run(connection, entries)
        _roll_up(connection, entries)


def _entry(row: Row, final: FinalState, now: int) -> dict[str, Any]:
    return {
        **row._asdict(),
        "prompt_tokens": final.tokens.prompt,
        "cached_tokens": final.tokens.cached,
        "completion_tokens": final.tokens.completion,
        "settled_at": now,
        "state": final.outcome.state,
        "outcome": final.outcome.value,
        "reason": None if final.reason is None else stored(final.reason, _TEXT_MAX),
        "cost": final.cost,
    }


def _roll_up(connection: Link, entries: Sequence[dict[str, Any]]) -> None:
    sums: dict[tuple[object, ...], list[int]] = defaultdict(lambda: [0] * len(tables.SUMS))
    for entry in entries:
        if entry["state"] == Outcome.VOID:
            continue
        key_id, model, account_id, user = entry["key_id"], entry["model"], entry["account_id"], entry["end_user"]
        day = day_start(entry["reserved_at"])
        places = [
            (tables.DAY, key_id, day, model, account_id, ""),
            (tables.QUARTER, key_id, quarter_start(entry["reserved_at"]), model, account_id, ""),
        ]
        if user:
            places.append((tables.USER, key_id, day, model, account_id, user))
        for place in places:
            total = sums[place]
            total[0] += 1
            for index, column in enumerate(tables.SUMS[1:], start=1):
                total[index] += entry[column]
    if not sums:
        return
    names = tables.DIMENSIONS + tables.SUMS
    rows = [dict(zip(names, (*place, *total), strict=True)) for place, total in sums.items()]
    _ROLL_UP[dialect_of(connection)].run(connection, rows)


def _claim(connection: Link, process_id: str, claims: Sequence[Reservation], written: Written, now: int) -> None:
    taken = _used_ids(connection, claims, now)
    rows: list[dict[str, Any]] = []
    for claim in claims:
        try:
            rows.append(_admit(claim, process_id, taken, written, now))
        except LedgerError as refusal:
            written.refusals[claim.request_id] = refusal
    if rows:
        _RESERVE.run(connection, rows)


def _admit(claim: Reservation, process_id: str, taken: set[str], written: Written, now: int) -> dict[str, Any]:
    request = claim.request
    if request.request_id in taken:
        raise DuplicateRequest(request.request_id)
    account, key = written.accounts.get(request.key.account_id), written.keys.get(request.key.id)
    if account is None or key is None:
        raise UnknownKey(f"There is no key {request.key.id} of account {request.key.account_id} in this ledger.")
    # Never before the periods that it is counted in, even if this machine's clock is late.
    reserved_at = max(now, account.latest_start, key.latest_start)
    model = stored(request.model, _TEXT_MAX)
    for standing in (account, key):
        standing.enter(reserved_at)
    key.require(claim.amount, model, "key")
    account.require(claim.amount, model, "account")
    account.hold(claim.amount, model)
    key.hold(claim.amount, model)
    taken.add(request.request_id)
    written.reserved_at[request.request_id] = reserved_at
    return {
        "request_id": request.request_id,
        "process_id": process_id,
        "account_id": account.id,
        "key_id": key.id,
        "model": model,
        "route": stored(request.route, _TEXT_MAX),
        "end_user": None if request.user is None else stored(request.user, _TEXT_MAX),
        "tier": request.tier.value,
        "price_input": request.price.input,
        "price_output": request.price.output,
        "price_cached_input": request.price.cached_input,
        "amount": claim.amount,
        "started_at": request.started_at,
        "reserved_at": reserved_at,
        "prompt_tokens": 0,
        "cached_tokens": 0,
        "completion_tokens": 0,
    }


def _used_ids(connection: Link, claims: Sequence[Reservation], now: int) -> set[str]:
    ids = padded([claim.request_id for claim in claims])
    return {row.request_id for row in _USED.rows(connection, ids, since=now - DUPLICATE_DAYS * MS_PER_DAY)}


async def missing_entries(database: Database, request_ids: Sequence[str], process_id: str) -> set[str]:
    """Those of these ids that have no entry by this process: another one settled them, or they never stood."""
    table = tables.entries
    query = select(table.c.request_id).where(
        table.c.request_id.in_(padded(request_ids)),
        table.c.process_id == process_id,
        table.c.outcome != Outcome.INTERRUPTED.value,
    )
    async with database.read() as connection:
        return set(request_ids) - set(await connection.scalars(query))


async def write_checkpoints(database: Database, running: Sequence[Reservation]) -> set[str]:
    """Store the latest counts of running requests, in a transaction of their own (see `tables` for why). Give the ids
    of those that aren't there any more: another process has settled them."""
    rows = [
        {
            "row_id": reservation.request_id,
            "prompt_tokens": reservation.tokens.prompt,
            "cached_tokens": reservation.tokens.cached,
            "completion_tokens": reservation.tokens.completion,
        }
        for reservation in sorted(running, key=lambda one: one.request_id)
    ]
    ids = [reservation.request_id for reservation in running]

    def work(connection: Link) -> set[str]:
        _CHECKPOINT.run(connection, rows)
        return set(ids) - {row.request_id for row in _OPEN_IDS.rows(connection, padded(ids))}

    return await database.transact(work)

"""The keys in memory, so that authentication never waits for the database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Row, select

from pricing import tables
from pricing.clock import Clock, monotonic, system_clock
from pricing.key import Key, key_of
from pricing.secret import SECRET_LENGTH_MAX, hash_secret, is_well_formed
from storage.database import Database
from storage.errors import LedgerUnavailable
from storage.schema import meta
from storage.statements import PreparedValue

logger = logging.getLogger("farebox.ledger")

_VERSION: Final = PreparedValue(select(meta.c.directory_version))
_RESOLVE_MS_APART: Final = 50
_RETRY_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class DirectorySettings:
    """Times in milliseconds. `refresh_ms`: how often changes are read; a revoked key stops within this and one query,
    on every replica. `stale_ms_max`: for how long keys stay valid with the database away. `page`: rows in one read."""

    refresh_ms: int = 400
    stale_ms_max: int = 300_000
    page: int = 2_000
    clock: Clock = system_clock
    monotonic: Clock = monotonic


@dataclass(frozen=True, slots=True)
class _Entry:
    key: Key
    until: int | None  # for the secret before a rotation: when it ends


class KeyDirectory:
    """A snapshot of all usable keys by the hash of their secret, refreshed with what changed."""

    def __init__(self, database: Database, settings: DirectorySettings) -> None:
        self._database = database
        self._settings = settings
        self._by_hash: dict[bytes, _Entry] = {}
        self._hashes: dict[int, tuple[bytes, ...]] = {}
        self._version = -1
        self._read_at = 0
        self._failed_at: int | None = None
        self._lock = asyncio.Lock()
        self.reads = 0
        self._reads_done = 0
        self._refresher: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        database: Database,
        settings: DirectorySettings = DirectorySettings(),
    ) -> KeyDirectory:
        """Load all keys and start refreshing. Raises LedgerUnavailable."""
        directory = cls(database, settings)
        await directory.refresh()
        directory._refresher = asyncio.create_task(directory._keep_fresh(), name="key directory")
        return directory

    async def close(self) -> None:
        """Stop refreshing."""
        if self._refresher is not None:
            self._refresher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refresher

    def find(self, secret: str) -> Key | None:
        """The usable key of this secret; None if unknown, revoked, expired or of a suspended account.

        The same work is done for each of these, and what is compared is a hash, so its time tells nothing of use.
        Raises LedgerUnavailable when the snapshot is older than `stale_ms_max`.
        """
        return self.find_hash(hash_secret(secret[: SECRET_LENGTH_MAX + 1]))

    def find_hash(self, digest: bytes) -> Key | None:
        """The same for whoever kept the hash of a secret that was shown once. Raises LedgerUnavailable."""
        now = self._settings.clock()
        if self._settings.monotonic() - self._read_at > self._settings.stale_ms_max:
            raise LedgerUnavailable("the keys could not be read for too long")
        found = self._by_hash.get(digest)
        if found is None or (found.until is not None and now >= found.until):
            return None
        expires_at = found.key.terms.expires_at
        return None if expires_at is not None and now >= expires_at else found.key

    def by_id(self, key_id: int) -> Key | None:
        """The usable key of this id, for work that goes on after its client has left."""
        digests = self._hashes.get(key_id)
        key = self._by_hash[digests[0]].key if digests else None
        expires_at = None if key is None else key.terms.expires_at
        return None if expires_at is not None and self._settings.clock() >= expires_at else key

    async def resolve(self, secret: str) -> Key | None:
        """Like `find`, but a well-formed unknown secret waits for one refresh (a key just made on another replica).

        Refreshes are shared between callers and at least 50 ms apart, so a flood of made-up secrets (anyone can make a
        checksum) costs 20 small queries a second at most. With the database away the snapshot's answer holds.
        """
        key = self.find(secret)
        if key is None and is_well_formed(secret):
            now = self._settings.monotonic()
            if self._failed_at is not None and now - self._failed_at < _RETRY_MS:
                return None
            await asyncio.sleep(max(0, self._read_at + _RESOLVE_MS_APART - now) / 1000)
            if self._read_at <= now:  # else somebody has read meanwhile
                with contextlib.suppress(LedgerUnavailable):
                    await self.refresh()
            key = self.find(secret)
        return key

    async def refresh(self) -> None:
        """Read what changed, now; call it after changing a key in this process. Raises LedgerUnavailable."""
        wanted = self.reads + 1  # one that runs already may have read before the caller's change
        async with self._lock:
            if self._reads_done < wanted:
                self.reads += 1
                started_at = self._settings.monotonic()
                try:
                    await self._read()
                except LedgerUnavailable:
                    self._failed_at = started_at
                    raise
                self._reads_done = self.reads
                self._read_at = started_at

    async def _keep_fresh(self) -> None:
        away = False
        while True:
            await asyncio.sleep(self._settings.refresh_ms / 1000)
            try:
                await self.refresh()
            except LedgerUnavailable as error:
                if not away:
                    logger.warning("The key directory can't be refreshed: %s", error)
                away = True
            except Exception:
                logger.exception("The key directory can't be refreshed")
            else:
                away = False

    async def _read(self) -> None:
        accounts, keys = tables.accounts, tables.keys
        version = await self._database.peek(_VERSION)
        if version == self._version:
            return
        async with self._database.read() as connection:
            last_id = 0
            while True:
                changed = (
                    select(keys, accounts.c.suspended_at, accounts.c.weight)
                    .join(accounts, accounts.c.id == keys.c.account_id)
                    .where(keys.c.version > self._version, keys.c.id > last_id)
                    .order_by(keys.c.id)
                    .limit(self._settings.page)
                )
                rows = (await connection.execute(changed)).all()
                for row in rows:
                    self._take(row)
                if len(rows) < self._settings.page:
                    # Rows newer than `version` may be among these; reading them again next time does no harm.
                    self._version = version
                    break
                last_id = rows[-1].id

    def _take(self, row: Row[Any]) -> None:
        for digest in self._hashes.pop(row.id, ()):
            del self._by_hash[digest]
        if row.revoked_at is not None or row.suspended_at is not None:
            return
        key = replace(key_of(row), weight=row.weight)
        entries = {row.secret_hash: _Entry(key, None)}
        if row.previous_hash is not None and row.previous_until > self._settings.clock():
            entries[row.previous_hash] = _Entry(key, row.previous_until)
        self._by_hash.update(entries)
        self._hashes[key.id] = tuple(entries)

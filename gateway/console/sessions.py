"""Sessions of the console: opened with a key, kept as hashes, ended with the key.

A session is worth as much as the secret that opened it: it holds that secret's hash and asks the key directory at every
page, so that a key that is revoked, suspended, expired or rotated away ends its sessions at once.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from sqlalchemy import delete, insert, or_, select, update

from gateway.console.table import console_sessions
from gateway.models.catalog import Catalog
from gateway.models.model import Model
from pricing.clock import Clock, system_clock
from pricing.directory import KeyDirectory
from pricing.key import Key
from pricing.secret import hash_secret
from storage.database import Database

TOKEN_BYTES = 32
SEEN_MS_APART = 60_000  # a page doesn't write to the database if another one did a moment ago

_T = console_sessions.c


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is signed in, and what that lets them see. Today it is always a key."""

    key: Key

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def is_operator(self) -> bool:
        return self.key.role == "admin"

    @property
    def key_id(self) -> int | None:
        """The one key whose usage they may see; None for all keys."""
        return None if self.is_operator else self.key.id

    @property
    def actor(self) -> str:
        """As the audit log names them."""
        return f"admin key {self.key.id} ({self.key.prefix}), console"

    def models(self, catalog: Catalog) -> list[Model]:
        """Those in their catalog: the ones that they may use, and for an operator all that there are."""
        if self.is_operator:
            return [*catalog, *catalog.added.values()]
        return [model for model in catalog.visible_to(self.key.account_id) if self.key.allows(model.name)]


@dataclass(frozen=True, slots=True)
class Session:
    """One that is open. `token` is what the cookie holds."""

    principal: Principal
    token: str = field(repr=False)

    @property
    def csrf(self) -> str:
        """What a form of this session must send along: made from the cookie's token, which no other page can read."""
        return hmac.new(self.token.encode(), b"farebox console form", hashlib.sha256).hexdigest()

    def sent_by_us(self, csrf: str) -> bool:
        return hmac.compare_digest(self.csrf.encode(), csrf.encode("utf-8", "replace"))


class Sessions:
    """All methods raise LedgerUnavailable while the database is away. Times are milliseconds."""

    def __init__(
        self, database: Database, keys: KeyDirectory, *, idle_ms: int, life_ms: int, clock: Clock = system_clock
    ) -> None:
        self._database = database
        self._keys = keys
        self._idle_ms = idle_ms
        self._life_ms = life_ms
        self._clock = clock

    @property
    def life_seconds(self) -> int:
        return self._life_ms // 1000

    async def open(self, secret: str) -> Session | None:
        """A new session for whoever shows this key, with a token that nobody had before; None where there is none."""
        key = await self._keys.resolve(secret)
        if key is None:
            return None
        now, token = self._clock(), secrets.token_urlsafe(TOKEN_BYTES)
        row = {"token_hash": _hash(token), "secret_hash": hash_secret(secret), "opened_at": now, "seen_at": now}
        gone = or_(_T.opened_at <= now - self._life_ms, _T.seen_at <= now - self._idle_ms)
        async with self._database.write() as connection:
            await connection.execute(delete(console_sessions).where(gone))
            await connection.execute(insert(console_sessions).values(row))
        return Session(Principal(key), token)

    async def find(self, token: str) -> Session | None:
        """The open session of this token, which lives on by that."""
        digest, now = _hash(token), self._clock()
        async with self._database.read() as connection:
            query = select(_T.secret_hash, _T.opened_at, _T.seen_at).where(_T.token_hash == digest)
            row = (await connection.execute(query)).one_or_none()
        if row is None or now >= row.opened_at + self._life_ms or now >= row.seen_at + self._idle_ms:
            return None
        key = self._keys.find_hash(row.secret_hash)
        if key is None:
            return None
        if now - row.seen_at > min(SEEN_MS_APART, self._idle_ms // 4):
            async with self._database.write() as connection:
                seen = update(console_sessions).where(_T.token_hash == digest, _T.seen_at < now)
                await connection.execute(seen.values(seen_at=now))
        return Session(Principal(key), token)

    async def end(self, token: str) -> None:
        """Whether or not it is open."""
        async with self._database.write() as connection:
            await connection.execute(delete(console_sessions).where(_T.token_hash == _hash(token)))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()

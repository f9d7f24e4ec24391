"""The keys in memory, so that authentication never waits for the database."""

from __future__ import annotations

from dataclasses import dataclass

from pricing.clock import Clock, system_clock
from pricing.database import Database
from pricing.keys import Key


@dataclass(frozen=True, slots=True)
class DirectorySettings:
    """`refresh_ms`: how often changes are read; a revoked key stops within this, plus one query, on every replica.
    `stale_ms_max`: for how long keys stay valid with the database away."""

    refresh_ms: int = 400
    stale_ms_max: int = 300_000
    clock: Clock = system_clock


class KeyDirectory:
    """A snapshot of all usable keys by the hash of their secret, refreshed with what changed."""

    @classmethod
    async def open(cls, database: Database, settings: DirectorySettings = DirectorySettings()) -> KeyDirectory:
        """Load all keys and start refreshing. Raises LedgerUnavailable."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop refreshing."""
        raise NotImplementedError

    def find(self, secret: str) -> Key | None:
        """The usable key of this secret; None if unknown, revoked, expired or of a suspended account.

        Raises LedgerUnavailable when the snapshot is older than `stale_ms_max`.
        """
        raise NotImplementedError

    async def resolve(self, secret: str) -> Key | None:
        """Like `find`, but a well-formed unknown secret waits for one refresh (a key just made on another replica).

        Refreshes are shared between callers and rare, so a flood of made-up secrets costs a few queries a second.
        """
        raise NotImplementedError

    async def refresh(self) -> None:
        """Read what changed, now; call it after changing a key in this process. Raises LedgerUnavailable."""
        raise NotImplementedError

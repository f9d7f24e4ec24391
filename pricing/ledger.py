"""The ledger: reserve, then settle or void; durable, exactly once, never more than the limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pricing.clock import Clock, system_clock
from pricing.database import Database
from pricing.reservation import Reservation, ReserveRequest


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """Times in milliseconds. `commit_observer` gets nanoseconds and operations of each group commit, for metrics."""

    lease_ms: int = 15_000
    heartbeat_ms: int = 3_000
    checkpoint_ms: int = 500
    settle_linger_ms: int = 5
    batch_max: int = 500
    retry_ms_max: int = 1_000
    close_ms_max: int = 10_000
    balance_age_ms_max: int = 500
    entry_days: int | None = None
    clock: Clock = system_clock
    commit_observer: Callable[[int, int], None] | None = None


class Ledger:
    """One process's part of the ledger. All methods belong to one event loop."""

    @classmethod
    async def open(cls, database: Database, settings: LedgerSettings = LedgerSettings()) -> Ledger:
        """Start the writer, the lease and recovery. Raises LedgerUnavailable, SchemaMismatch."""
        raise NotImplementedError

    async def close(self) -> None:
        """Write everything that can be written within `close_ms_max`, then stop. Settle all requests first."""
        raise NotImplementedError

    async def abandon(self) -> None:
        """Stop at once and write nothing, as a crash would: recovery does the rest."""
        raise NotImplementedError

    @property
    def available(self) -> bool:
        """Whether the last commit worked. False refuses new reservations; it is retried until it works."""
        raise NotImplementedError

    @property
    def unsettled(self) -> int:
        """Settlements (and voids) that are not durable yet."""
        raise NotImplementedError

    @property
    def running(self) -> int:
        """Reservations that are neither settled nor void."""
        raise NotImplementedError

    def reserve(self, request: ReserveRequest) -> Reservation:
        """Claim the worst case of a request. Synchronous: the durable part runs on, see `Reservation.stands`.

        Raises InsufficientFunds where the last known balance can't cover it, LedgerUnavailable while the database is
        away or the ledger is closing, InvalidAmount where the worst case is more than the ledger holds.
        """
        raise NotImplementedError

    async def flush(self) -> None:
        """Return once everything queued so far is durable. Raises LedgerUnavailable."""
        raise NotImplementedError

    async def recover(self) -> int:
        """Settle the requests of processes whose lease ran out; give their number. Runs by itself, too."""
        raise NotImplementedError

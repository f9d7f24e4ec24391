"""How a ledger behaves. Frozen, and given by the gateway; this package reads no environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pricing.clock import Clock, monotonic, system_clock
from storage.errors import InvalidSetting


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """Times in milliseconds.

    - `lease_ms`: how long a silent process counts as alive; `heartbeat_ms`: how often it says that it lives.
    - `checkpoint_ms`: how often running requests' counts are stored: with one commit this must stay below 1 s.
    - `commit_interval_ms`: the least time from the start of one group commit to the start of the next. The first
      after a pause starts at once; under load it makes groups larger, while the engine prefills anyway.
    - `settle_linger_ms`: for how long settlements gather; reservations never wait for this.
    - `batch_max`: reservations and, again, settlements in one commit.
    - `retry_ms_max`: the longest pause between tries while the database is away.
    - `close_ms_max`: for how long `Ledger.close` tries to write what is left.
    - `lock_patience_ms`: for how long a reservation waits while another process holds its account's or key's row.
    - `balance_age_ms_max`: for how long a known balance may refuse without asking the database.
    - `entry_days`: entries older than this are removed (they stay in the sums of usage); None keeps all.
    - `commit_observer` gets nanoseconds and operations of each group commit, for metrics.
    """

    lease_ms: int = 15_000
    heartbeat_ms: int = 3_000
    checkpoint_ms: int = 500
    commit_interval_ms: int = 10
    settle_linger_ms: int = 100
    batch_max: int = 500
    retry_ms_max: int = 1_000
    close_ms_max: int = 10_000
    lock_patience_ms: int = 8_000
    balance_age_ms_max: int = 500
    entry_days: int | None = None
    clock: Clock = system_clock
    monotonic: Clock = monotonic
    commit_observer: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.heartbeat_ms * 3 > self.lease_ms:
            raise InvalidSetting(
                f"A heartbeat every {self.heartbeat_ms} ms is too rare for a lease of {self.lease_ms} ms; "
                "make the lease at least three heartbeats long."
            )
        if not 1 <= self.checkpoint_ms <= 1_000:
            raise InvalidSetting(f"checkpoint_ms is {self.checkpoint_ms}; it must be from 1 to 1000.")
        if self.batch_max < 1:
            raise InvalidSetting(f"batch_max is {self.batch_max}; it must be 1 or more.")
        if self.entry_days is not None and self.entry_days < 7:
            raise InvalidSetting(f"entry_days is {self.entry_days}; it must be 7 or more, or none to keep all.")

"""Ends and claims whose account or key another process holds locked: kept apart, so that they hold up nobody else."""

from __future__ import annotations

from itertools import islice
from typing import Final

from pricing.commit import Batch, Place
from pricing.reservation import Final as FinalState
from pricing.reservation import Reservation

_RETRY_MS: Final = 50


class Aside:
    """What waits for locked rows, tried again every 50 ms without waiting within the database.

    An end waits for as long as it takes; a claim for `patience_ms`, since somebody waits for its answer. Times are
    milliseconds of the monotonic clock.
    """

    def __init__(self, patience_ms: int) -> None:
        self.since: int | None = None  # since when something has been waiting all the time
        self._patience_ms = patience_ms
        self._locked: set[Place] = set()
        self._finals: dict[str, FinalState] = {}
        self._claims: dict[str, Reservation] = {}
        self._claimed: dict[str, int] = {}  # since when each claim waits
        self._retry_at = 0

    def __len__(self) -> int:
        return len(self._finals) + len(self._claims)

    @property
    def finals(self) -> set[str]:
        """The request ids of the ends that wait."""
        return set(self._finals)

    @property
    def retry_at(self) -> int | None:
        """When to try again; None where nothing waits."""
        return self._retry_at if len(self) else None

    def is_due(self, now: int) -> bool:
        return len(self) > 0 and now >= self._retry_at

    def take(self, count: int) -> Batch:
        """What has waited longest, to be tried again: up to `count` ends and, again, claims."""
        finals = [self._finals.pop(request_id) for request_id in [*islice(self._finals, count)]]
        claims = [self._claims.pop(request_id) for request_id in [*islice(self._claims, count)]]
        return Batch(finals, claims)

    def learn(self, tried: Batch, locked: set[Place], now: int) -> None:
        """A commit tried these, and found these places locked."""
        if self._locked or locked:
            self._locked = (self._locked - tried.places()) | locked
            self._retry_at = now + _RETRY_MS

    def sift(self, batch: Batch, now: int) -> Batch:
        """Keep what touches a locked place, and give the rest."""
        rest, waiting = batch.split(self._locked)
        self._finals |= {final.request_id: final for final in waiting.finals}
        for claim in waiting.claims:
            self._claims[claim.request_id] = claim
            self._claimed.setdefault(claim.request_id, now)
        self._tidy(now)
        return rest

    def impatient(self, now: int) -> list[Reservation]:
        """The claims that have waited too long; they wait no more."""
        since = now - self._patience_ms
        late = [claim for request_id, claim in self._claims.items() if self._claimed[request_id] <= since]
        for claim in late:
            del self._claims[claim.request_id]
        self._tidy(now)
        return late

    def give_up_claims(self) -> list[Reservation]:
        """All claims: the database is away, and nobody's patience matters."""
        claims = list(self._claims.values())
        self._claims.clear()
        return claims

    def _tidy(self, now: int) -> None:
        if self._claimed:
            self._claimed = {request_id: self._claimed[request_id] for request_id in self._claims}
        if not len(self):
            self.since = None
            self._locked.clear()
        elif self.since is None:
            self.since = now

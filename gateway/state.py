"""What the handlers work with."""

import time
from dataclasses import dataclass, field

from gateway.batches.batches import Batches
from gateway.errors import falling_behind
from gateway.files.files import Files
from gateway.idempotency.keys import Idempotency
from gateway.limits.admission import RateLimits
from gateway.models.adapters import Adapters
from gateway.models.catalog import Catalog
from gateway.models.fleet import Fleet
from gateway.request.large_bodies import LargeBodies
from gateway.request.pipeline import Pipeline
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import Tracing
from gateway.telemetry.watchdog import LoopWatch
from gateway.webhooks.delivery import Webhooks
from pricing.directory import KeyDirectory
from pricing.ledger import Ledger
from storage.database import Database


@dataclass(slots=True)
class Gateway:
    """Everything that a handler may need. Made once, at the start; nothing of it is a module's global."""

    settings: Settings
    catalog: Catalog
    fleet: Fleet
    adapters: Adapters
    ledger: Ledger
    keys: KeyDirectory
    metrics: Metrics
    pipeline: Pipeline
    webhooks: Webhooks
    limits: RateLimits
    idempotency: Idempotency
    database: Database
    tracing: Tracing
    watch: LoopWatch
    large_bodies: LargeBodies
    files: Files
    batches: Batches
    started: int = field(default_factory=lambda: int(time.time()))
    stopping: bool = False

    @property
    def behind_seconds(self) -> float:
        """How late it is with what it does: its event loop's delay, or the age of the tokens that it passes on.

        One stop that is over keeps nobody waiting any more, so the loop must have been late lately and be late now.
        """
        loop = min(self.watch.recent_seconds, self.watch.last_seconds)
        return max([loop, *(engine.lag_seconds for engine in self.fleet.engines)])

    def check_pace(self) -> None:
        """Raises Unavailable where those that run would have to wait too long for one more."""
        behind, seconds_max = self.behind_seconds, self.settings.loop_delay_seconds_max
        if behind > seconds_max and self.pipeline.running:
            raise falling_behind(behind, seconds_max)

    def problems(self) -> list[str]:
        """Why it can't serve now, in words; empty when it can."""
        problems = []
        if self.stopping:
            problems.append("shutting down")
        if not self.ledger.available:
            problems.append("the ledger can't commit")
        elif self.ledger.stalled:
            problems.append("the ledger waits for rows that another process holds")
        if not self.fleet.ready:
            states = {state.value for state in self.fleet.states.values()} - {"ready"}
            problems.append(f"engine {', '.join(sorted(states)) or 'starting'}")
        return problems

"""The gateway put together: its dependencies, opened in order and closed in reverse."""

from collections.abc import AsyncIterator, MutableSequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Protocol, TypeVar

from gateway.batches.batches import Batches
from gateway.files.files import Files
from gateway.idempotency.keys import Idempotency
from gateway.idempotency.store import IdempotencyStore
from gateway.limits.fallback import open_limits
from gateway.models.adapter_store import AdapterStore
from gateway.models.adapters import Adapters
from gateway.models.fleet import Fleet
from gateway.process.bootstrap import FirstKeys, ensure_keys
from gateway.process.gauges import register_gauges
from gateway.process.ledger_database import ledger_database
from gateway.request.large_bodies import LargeBodies
from gateway.request.pipeline import Pipeline
from gateway.request.turns import Turns
from gateway.routes.batch_lines import BatchLines
from gateway.settings import Settings
from gateway.state import Gateway
from gateway.telemetry.budget_watch import BudgetWatch
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import open_tracing
from gateway.telemetry.watchdog import LoopWatch
from gateway.webhooks.calls import WebhookSettings
from gateway.webhooks.delivery import Webhooks
from gateway.webhooks.public_http import Resolve, system_resolve
from pricing.directory import DirectorySettings, KeyDirectory
from pricing.ledger import Ledger, LedgerSettings
from pricing.usage import Usage
from storage.database import Database

HEARTBEAT_MS = 3_000  # how often a process says that it lives, where its lease is long enough


class Closes(Protocol):
    """What has to be closed at the end."""

    async def close(self) -> None: ...


C = TypeVar("C", bound=Closes)


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    fleet: Fleet,
    resolve: Resolve = system_resolve,
    clocks: MutableSequence[int] | None = None,
) -> AsyncIterator[tuple[Gateway, FirstKeys]]:
    """The gateway's dependencies, opened in order and closed in reverse. Engines are not started here.

    `resolve` finds the addresses of the hosts that clients name in webhooks; `clocks` are those of
    `gateway.request.turns`, where other processes have the same engines.
    """
    release = version("farebox")
    metrics = Metrics(release, together=settings.workers > 1)
    async with AsyncExitStack() as stack:

        def closing(made: C) -> C:
            stack.push_async_callback(made.close)
            return made

        watch = closing(LoopWatch.open(metrics.loop_delay.observe, log_seconds=settings.loop_delay_log_seconds))
        database = await stack.enter_async_context(ledger_database(settings))
        first_keys = await ensure_keys(database, settings)
        ledger = closing(await _ledger(database, settings, metrics))
        fresh = DirectorySettings(stale_ms_max=int(settings.key_cache_seconds * 1000))
        keys = closing(await KeyDirectory.open(database, fresh))
        pipeline = Pipeline(ledger, metrics, Turns(fleet.engines, clocks), seconds_max=settings.request_timeout_seconds)
        limits = closing(await open_limits(settings, metrics))
        webhooks = closing(Webhooks.open(database, pipeline, metrics, WebhookSettings.of(settings, release), resolve))
        idempotency = closing(_idempotency(database, ledger, settings))
        await idempotency.open()
        budgets = closing(await BudgetWatch.open(database))
        tracing = closing(open_tracing(settings, release))
        large_bodies = closing(_large_bodies(settings))
        adapters = closing(Adapters(fleet, AdapterStore(database), pipeline.running_of, settings.adapters_max))
        adapters.open()
        files = closing(Files.open(database, settings))
        batches = closing(Batches(database, files, webhooks, settings, ledger.process_id))
        gateway = Gateway(
            settings=settings,
            catalog=fleet.catalog,
            fleet=fleet,
            adapters=adapters,
            ledger=ledger,
            keys=keys,
            metrics=metrics,
            pipeline=pipeline,
            webhooks=webhooks,
            limits=limits,
            idempotency=idempotency,
            database=database,
            tracing=tracing,
            watch=watch,
            large_bodies=large_bodies,
            files=files,
            batches=batches,
        )
        batches.start(BatchLines(gateway))
        register_gauges(gateway, budgets)
        stack.push_async_callback(metrics.close)
        yield gateway, first_keys


async def prepare_database(settings: Settings) -> FirstKeys:
    """The database as `open_gateway` leaves it, before several processes open it at once. Raises LedgerError."""
    async with ledger_database(settings) as database:
        return await ensure_keys(database, settings)


async def _ledger(database: Database, settings: Settings, metrics: Metrics) -> Ledger:
    lease_ms = int(settings.lease_seconds * 1000)
    return await Ledger.open(
        database,
        LedgerSettings(
            lease_ms=lease_ms,
            heartbeat_ms=min(HEARTBEAT_MS, lease_ms // 5),
            checkpoint_ms=int(settings.checkpoint_seconds * 1000),
            lock_patience_ms=int(settings.database_statement_seconds * 1000),
            entry_days=settings.ledger_entry_days,
            commit_observer=metrics.commit,
        ),
    )


def _large_bodies(settings: Settings) -> LargeBodies:
    return LargeBodies(
        waiting_max=settings.large_requests_max,
        seconds_max=settings.body_check_seconds_max,
        memory_bytes_max=settings.body_check_memory_bytes_max,
    )


def _idempotency(database: Database, ledger: Ledger, settings: Settings) -> Idempotency:
    return Idempotency(
        IdempotencyStore(database),
        Usage(database),
        ledger,
        life_ms=int(settings.idempotency_hours * 3_600_000),
        bytes_max=settings.idempotency_bytes_max,
    )

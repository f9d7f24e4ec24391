"""The gateway put together: its dependencies, opened in order and closed in reverse."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

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


@asynccontextmanager
async def open_gateway(
    settings: Settings, fleet: Fleet, resolve: Resolve = system_resolve
) -> AsyncIterator[tuple[Gateway, FirstKeys]]:
    """The gateway's dependencies, opened in order and closed in reverse. Engines are not started here.

    `resolve` finds the addresses of the hosts that clients name in webhooks.
    """
    release = version("farebox")
    metrics = Metrics(release, together=settings.workers > 1)
    async with AsyncExitStack() as stack:
        watch = LoopWatch.open(metrics.loop_delay.observe, log_seconds=settings.loop_delay_log_seconds)
        stack.push_async_callback(watch.close)
        database = await stack.enter_async_context(ledger_database(settings))
        first_keys = await ensure_keys(database, settings)
        ledger = await _ledger(database, settings, metrics)
        stack.push_async_callback(ledger.close)
        keys = await KeyDirectory.open(database, DirectorySettings(stale_ms_max=int(settings.key_cache_seconds * 1000)))
        stack.push_async_callback(keys.close)
        pipeline = Pipeline(ledger, metrics, seconds_max=settings.request_timeout_seconds)
        limits = await open_limits(settings, metrics)
        stack.push_async_callback(limits.close)
        webhooks = Webhooks.open(database, pipeline, metrics, WebhookSettings.of(settings, release), resolve)
        stack.push_async_callback(webhooks.close)
        idempotency = _idempotency(database, ledger, settings)
        await idempotency.open()
        stack.push_async_callback(idempotency.close)
        budgets = await BudgetWatch.open(database)
        stack.push_async_callback(budgets.close)
        tracing = open_tracing(settings, release)
        stack.push_async_callback(tracing.close)
        large_bodies = _large_bodies(settings)
        stack.push_async_callback(large_bodies.close)
        adapters = Adapters(
            fleet,
            AdapterStore(database),
            lambda model: sum(pipeline.loads().get(model, (0, 0))),
            settings.adapters_max,
        )
        adapters.open()
        stack.push_async_callback(adapters.close)
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
        )
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

"""The metrics that are read from the gateway's parts at each scrape, and those that start at zero."""

import asyncio
import time
from collections.abc import Callable

from engine.base import EngineState
from gateway.batches.batch import OPEN
from gateway.errors import GatewayError
from gateway.request.pipeline import Load
from gateway.state import Gateway
from gateway.telemetry.budget_watch import BudgetWatch
from gateway.telemetry.metrics import Readings
from pricing.tier import Tier

# Codes that are given to an error where it is raised; the others are the classes' own.
OTHER_CODES = (
    "invalid_json",
    "context_length_exceeded",
    "unsupported_parameter",
    "model_not_found",
    "engine_overloaded",
    "engine_starting",
    "engine_dead",
    "ledger_unavailable",
    "shutting_down",
    "too_many_large_requests",
)


def register_gauges(gateway: Gateway, budgets: BudgetWatch) -> None:
    """Give the gateway's registry its readings."""
    metrics, ledger = gateway.metrics, gateway.ledger
    _register_models(gateway)
    metrics.gauge("farebox_ledger_unsettled", "Settlements not durable yet.", [], lambda: {(): ledger.unsettled})
    metrics.gauge("farebox_reservations_open", "Neither settled nor void.", [], lambda: {(): ledger.running})
    metrics.gauge(
        "farebox_large_requests_waiting",
        "Large requests that are read and made into prompts, or wait for it.",
        [],
        lambda: {(): gateway.large_bodies.waiting},
    )
    metrics.gauge("farebox_tasks", "Tasks of the event loop.", [], lambda: {(): len(asyncio.all_tasks())})
    metrics.gauge(
        "farebox_accounts_by_spent",
        "Accounts with a limit or credit of which at least this share is spent or reserved.",
        ["at_least"],
        budgets.readings,
        "max",  # every process counts the same accounts
    )
    _register_batches(gateway)
    metrics.start_at_zero({model.name: tuple(model.prices) for model in gateway.catalog}, rejection_codes())


def _register_models(gateway: Gateway) -> None:
    """By model, and by tier where requests are counted."""
    metrics, pipeline, fleet = gateway.metrics, gateway.pipeline, gateway.fleet
    idle = Load()

    def names() -> list[str]:
        return [*gateway.catalog.names, *gateway.catalog.added]

    def tiers() -> dict[str, tuple[Tier, ...]]:
        return {model.name: tuple(model.prices) for model in (*gateway.catalog, *gateway.catalog.added.values())}

    def by_tier(value: Callable[[Load], float]) -> Readings:
        loads = pipeline.loads()
        return {(name, tier): value(loads.get((name, tier), idle)) for name, own in tiers().items() for tier in own}

    def waiting() -> Readings:
        return by_tier(lambda load: load.waiting)

    def running() -> Readings:
        return by_tier(lambda load: load.generating)

    def oldest() -> Readings:
        now = time.perf_counter()
        return by_tier(lambda load: max(0.0, now - load.waiting_since))

    def states() -> Readings:
        return {(name, state.value): state is fleet.states[name] for name in names() for state in EngineState}

    def lags() -> Readings:
        return {(name,): fleet.lags[name] for name in names()}

    metrics.gauge("farebox_requests_waiting", "Requests without a token yet.", ["model", "tier"], waiting)
    metrics.gauge("farebox_requests_running", "Requests with tokens, not ended yet.", ["model", "tier"], running)
    metrics.gauge(
        "farebox_oldest_waiting_seconds",
        "Since when the oldest of the requests without a token waits.",
        ["model", "tier"],
        oldest,
        "max",
    )
    metrics.gauge("farebox_engine_state", "1 for the state that the engine is in.", ["model", "state"], states, "max")
    metrics.gauge(
        "farebox_engine_lag_seconds", "The age of the engine's tokens when they are passed on.", ["model"], lags, "max"
    )


def _register_batches(gateway: Gateway) -> None:
    """Every process counts the same batches."""
    metrics, batches = gateway.metrics, gateway.batches

    def by_status() -> Readings:
        return {(status,): batches.counts.by_status.get(status, 0) for status in OPEN}

    metrics.gauge("farebox_batches", "Batches that haven't ended, by status.", ["status"], by_status, "max")
    metrics.gauge(
        "farebox_batch_lines_left",
        "Requests of batches that have no result yet.",
        [],
        lambda: {(): batches.counts.lines_left},
        "max",
    )
    metrics.gauge(
        "farebox_batches_late",
        "Batches that will miss their window at the pace that they have.",
        [],
        lambda: {(): batches.counts.late},
        "max",
    )


def rejection_codes() -> set[str]:
    """Every code that a refusal can have from the start."""
    classes: list[type[GatewayError]] = [GatewayError]
    for known in classes:
        classes.extend(known.__subclasses__())
    return {known.code for known in classes} | set(OTHER_CODES)

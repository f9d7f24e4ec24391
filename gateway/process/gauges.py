"""The metrics that are read from the gateway's parts at each scrape, and those that start at zero."""

import asyncio

from engine.base import EngineState
from gateway.errors import GatewayError
from gateway.state import Gateway
from gateway.telemetry.budget_watch import BudgetWatch
from gateway.telemetry.metrics import Readings

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
    metrics, ledger, pipeline, fleet = gateway.metrics, gateway.ledger, gateway.pipeline, gateway.fleet

    def names() -> list[str]:
        return [*gateway.catalog.names, *gateway.catalog.added]

    def waiting() -> Readings:
        return {(name,): pipeline.loads().get(name, (0, 0))[0] for name in names()}

    def running() -> Readings:
        return {(name,): pipeline.loads().get(name, (0, 0))[1] for name in names()}

    def states() -> Readings:
        return {(name, state.value): state is fleet.states[name] for name in names() for state in EngineState}

    def lags() -> Readings:
        return {(name,): fleet.lags[name] for name in names()}

    metrics.gauge("farebox_requests_waiting", "Requests without a token yet.", ["model"], waiting)
    metrics.gauge("farebox_requests_running", "Requests with tokens, not ended yet.", ["model"], running)
    metrics.gauge("farebox_engine_state", "1 for the state that the engine is in.", ["model", "state"], states, "max")
    metrics.gauge(
        "farebox_engine_lag_seconds", "The age of the engine's tokens when they are passed on.", ["model"], lags, "max"
    )
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
    metrics.start_at_zero(gateway.catalog.names, rejection_codes())


def rejection_codes() -> set[str]:
    """Every code that a refusal can have from the start."""
    classes: list[type[GatewayError]] = [GatewayError]
    for known in classes:
        classes.extend(known.__subclasses__())
    return {known.code for known in classes} | set(OTHER_CODES)

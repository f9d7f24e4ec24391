"""Farebox without the meter: the same code with auth, limits, reservations, ledger and metrics that do nothing.

What is left of the difference to `farebox serve` is what these five cost. The stand-ins are passed to the same
pipeline, routes and middleware; nothing is patched but the one function that opens the dependencies.

    python -m bench.free serve      (settings from FAREBOX_*)
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from prometheus_client import CollectorRegistry

from gateway.models.fleet import Fleet
from gateway.process import server
from gateway.process.assembly import open_gateway
from gateway.process.bootstrap import FirstKeys
from gateway.request.pipeline import Pipeline
from gateway.request.turns import Turns
from gateway.settings import load_settings
from gateway.state import Gateway
from gateway.telemetry.logs import configure_logging
from gateway.telemetry.receipt import Receipt
from pricing.cost import NO_TOKENS
from pricing.keys import Key, KeyTerms
from pricing.money import Picodollars
from pricing.reservation import Outcome, ReserveRequest


class NoReservation:
    likely = True
    silence_max = float("inf")
    tokens_written = NO_TOKENS

    async def stands(self) -> None:
        return

    def follow(self, read: object) -> None:
        return

    def when_overtaken(self, call: object) -> None:
        return

    def settle(self, tokens: object, outcome: Outcome) -> Picodollars:
        return Picodollars(0)

    def void(self, reason: str) -> None:
        return


class NoLedger:
    available = True
    running = unsettled = overtaken = 0

    def reserve(self, request: ReserveRequest) -> NoReservation:
        return NoReservation()


class NoTimer:
    first_token_seconds: float | None = None

    def first_token(self) -> None:
        return

    def token(self) -> float:
        return 0.0

    def end(self, receipt: Receipt) -> None:
        return


class NoCounter:
    def labels(self, *values: str) -> "NoCounter":
        return self

    def inc(self, amount: float = 1) -> None:
        return


class NoMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rejections = NoCounter()

    def answered(self, model: str, route: str, status: str) -> NoCounter:
        return NoCounter()

    def stream_timer(self, model: str, arrived: float) -> NoTimer:
        return NoTimer()

    def __getattr__(self, name: str) -> Any:
        """What else there is, counts nothing."""
        return lambda *arguments, **options: None


class NoAdmission:
    async def enter(self, model: str) -> None:
        return

    async def take_tokens(self, model: str, prompt_tokens: int, completion_tokens_max: int) -> None:
        return

    def used(self, tokens: int | None) -> None:
        return

    def release(self) -> None:
        return


class NoLimits:
    def admission(self, key: Key, headers: object) -> NoAdmission:
        return NoAdmission()


class OneKey:
    """Every secret is this one's, unread."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def find(self, secret: str) -> Key:
        return self._key


@asynccontextmanager
async def open_free(settings: Any, fleet: Fleet) -> AsyncIterator[tuple[Gateway, FirstKeys]]:
    """The real gateway, with five of its parts taken out."""
    async with open_gateway(settings, fleet) as (gateway, first_keys):
        await gateway.keys.close()
        await gateway.ledger.abandon()
        gateway.keys = cast(Any, OneKey(Key(0, 0, "free", "free", "user", KeyTerms(), 0)))
        gateway.ledger = cast(Any, NoLedger())
        gateway.metrics = cast(Any, NoMetrics())
        gateway.limits = cast(Any, NoLimits())
        gateway.pipeline = Pipeline(
            gateway.ledger, gateway.metrics, Turns(fleet.engines), seconds_max=settings.request_timeout_seconds
        )
        yield gateway, first_keys


def main() -> None:
    settings = load_settings(os.environ)
    vars(server)["open_gateway"] = open_free
    configure_logging(settings)
    server.run(settings)


if __name__ == "__main__":
    main()

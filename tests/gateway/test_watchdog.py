"""The watch on the event loop: what it counts, and whom it names."""

import asyncio
import logging
import time

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.request.context import ContextMiddleware
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tracing import NoTracing
from gateway.telemetry.watchdog import PERIOD_SECONDS, LoopWatch


def test_a_delay_counts_as_all_the_looks_that_fell_out() -> None:
    seen: list[float] = []
    watch = LoopWatch(seen.append)
    watch.note(2.5 * PERIOD_SECONDS)
    assert seen == pytest.approx([0.5 * PERIOD_SECONDS, 1.5 * PERIOD_SECONDS, 2.5 * PERIOD_SECONDS])
    assert watch.last_seconds == 2.5 * PERIOD_SECONDS


def test_one_stop_passes_and_a_loop_that_is_always_late_is_told_so() -> None:
    once, always = LoopWatch(), LoopWatch()
    once.note(0.3)
    for _ in range(20):
        once.note(0.0)
        always.note(0.8)
    assert once.recent_seconds < 0.02
    assert always.recent_seconds == pytest.approx(0.8, rel=0.5)


async def test_what_holds_the_loop_up_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def hold() -> None:
        time.sleep(0.5)

    watch = LoopWatch.open(log_seconds=0.05)
    watch.tells = True
    with caplog.at_level(logging.WARNING, "farebox.loop"):
        await asyncio.create_task(hold(), name="POST /v1/somewhere")
        while not caplog.records:
            await asyncio.sleep(0.01)
    await watch.close()
    assert "POST /v1/somewhere (tests/gateway/test_watchdog.py:" in caplog.text
    assert "hold)" in caplog.text


async def test_a_requests_task_bears_its_route() -> None:
    names: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())
        await Response()(scope, receive, send)

    app = ContextMiddleware(inner, Metrics("0"), NoTracing(), ["/v1/models"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://farebox") as client:
        for path in ("/v1/models/of-a-client", "/made/up"):
            await asyncio.create_task(client.get(path))
    assert names == ["GET /v1/models", "GET other"]


def test_the_histogram_is_in_the_registry() -> None:
    metrics = Metrics("0")
    LoopWatch(metrics.loop_delay.observe).note(0.0)
    assert metrics.registry.get_sample_value("farebox_event_loop_delay_seconds_count") == 1

"""An engine that is killed: everyone learns of it at once."""

import asyncio
import multiprocessing
import os
import signal
import time

import pytest

from engine.base import ChatFormat, EngineSpec, EngineState, GenerationRequest, Sampling
from engine.demo import MODEL_DIR
from engine.embedded import EmbeddedEngine
from engine.errors import EngineDead
from tests.engine.conftest import read


def engine_pids() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.name == "EngineCore" and child.pid}


async def test_killed_engine_is_dead_and_fails_its_requests() -> None:
    before = engine_pids()
    engine = EmbeddedEngine(EngineSpec(str(MODEL_DIR), options={"disable_log_stats": True}))
    try:
        await dies(engine, before)
    finally:
        await engine.stop()
    assert engine_pids() == before


async def dies(engine: EmbeddedEngine, before: set[int]) -> None:
    ticks = asyncio.create_task(_longest_pause())
    starting = time.monotonic()
    await engine.start()
    ticks.cancel()
    paused, took = await ticks, time.monotonic() - starting
    assert paused < took / 2, "the event loop stood still while the weights were loaded"
    prompt = await engine.renderer(ChatFormat()).text("Once upon a time")
    generations = [
        await engine.generate(GenerationRequest(f"r{i}", prompt, Sampling(3000, ignore_eos=True), stream=i > 0))
        for i in range(3)
    ]
    while not all(generation.counts.completion for generation in generations):
        await asyncio.sleep(0.001)
    (pid,) = engine_pids() - before
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    for number, generation in enumerate(generations):
        rest = generation.forward(lambda delta: True) if number else read(generation)
        with pytest.raises(EngineDead):
            await asyncio.wait_for(rest, 10)
        assert generation.counts.completion > 0
        await generation.aclose()
    assert time.monotonic() - killed < 10
    assert engine.state is EngineState.DEAD
    with pytest.raises(EngineDead):
        await engine.check()
    with pytest.raises(EngineDead):
        await engine.generate(GenerationRequest("late", prompt, Sampling(1)))
    stopping = time.monotonic()
    await engine.stop()
    assert time.monotonic() - stopping < 20


async def _longest_pause() -> float:
    longest, last = 0.0, time.monotonic()
    try:
        while True:
            await asyncio.sleep(0.05)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
    except asyncio.CancelledError:
        return longest

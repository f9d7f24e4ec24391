"""The engine's own queue goes by the number that comes with each request, lower first."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from engine.base import EngineSpec, GenerationRequest, Sampling
from engine.demo import MODEL_DIR
from engine.embedded import EmbeddedEngine
from tests.engine.conftest import chat, read


@pytest.fixture(scope="module")
async def single() -> AsyncIterator[EmbeddedEngine]:
    """An engine that runs one request at a time."""
    started = EmbeddedEngine(EngineSpec(str(MODEL_DIR), options={"max_num_seqs": 1, "max_num_queued_reqs": 50}))
    await started.start()
    yield started
    await started.stop()


async def order_of(engine: EmbeddedEngine, priorities: list[int], n: int = 1) -> list[int]:
    """In which order the engine begins requests that come in this order, while another one runs."""
    begun: list[int] = []
    prompt = await chat(engine, "Hello!")
    long = Sampling(max_tokens=60, ignore_eos=True)
    first = await engine.generate(GenerationRequest("first", prompt, long))
    await anext(first)
    waiting = [
        await engine.generate(
            GenerationRequest(
                f"waits-{number}",
                prompt,
                Sampling(max_tokens=2, ignore_eos=True, n=n),
                priority=number,
                began=lambda number=number: begun.append(number),  # type: ignore[misc]  # bound now
            )
        )
        for number in priorities
    ]
    await asyncio.gather(*(read(generation) for generation in [first, *waiting]))
    return begun


async def test_the_lowest_number_is_next_whoever_came_first(single: EmbeddedEngine) -> None:
    batch = 3 * 2**56
    assert await order_of(single, [batch, 5, 2**56, -3, 4, batch - 1]) == [-3, 4, 5, 2**56, batch - 1, batch]


async def test_began_is_called_once_for_several_choices(single: EmbeddedEngine) -> None:
    assert await order_of(single, [2, 1], n=2) == [1, 2]


async def test_an_operator_may_choose_the_order_of_arrival() -> None:
    first_come = EmbeddedEngine(
        EngineSpec(str(MODEL_DIR), options={"max_num_seqs": 1, "max_num_queued_reqs": 50, "scheduling_policy": "fcfs"})
    )
    await first_come.start()
    try:
        assert await order_of(first_come, [9, 3, 5]) == [9, 3, 5]
    finally:
        await first_come.stop()


async def test_the_load_counts_what_runs_and_waits(single: EmbeddedEngine) -> None:
    assert single.load.seats == 1
    assert single.load.requests == 0
    prompt = await chat(single, "Hello!")
    running = await single.generate(GenerationRequest("r", prompt, Sampling(max_tokens=2000, ignore_eos=True)))
    await anext(running)
    assert single.load.requests == 1
    assert 0 < single.load.cache_used < 1
    await running.aclose()

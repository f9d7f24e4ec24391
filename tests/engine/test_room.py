"""Whether the engine has room: what decides who pays for a prompt whose client left before the first token."""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count

import pytest

from engine.base import EngineSpec, Generation, GenerationRequest, Sampling
from engine.demo import MODEL_DIR
from engine.embedded import EmbeddedEngine
from tests.engine.conftest import chat

SEATS = 2
_numbers = count()


@pytest.fixture(scope="module")
async def small() -> AsyncIterator[EmbeddedEngine]:
    """An engine that runs two requests at a time."""
    started = EmbeddedEngine(EngineSpec(str(MODEL_DIR), options={"max_num_seqs": SEATS}))
    await started.start()
    yield started
    await started.stop()


async def begin(engine: EmbeddedEngine) -> Generation:
    sampling = Sampling(max_tokens=5_000, ignore_eos=True)
    prompt = await chat(engine, "Count from 1 to 100.")
    return await engine.generate(GenerationRequest(f"room-{next(_numbers)}", prompt, sampling))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def told_waiting(engine: EmbeddedEngine) -> int:
    """How many requests waited after the engine's last step, as it told."""
    return sum(engine._require().core.output_processor.waiting.values())


async def test_there_is_room_until_requests_wait_and_again_when_they_have_left(small: EmbeddedEngine) -> None:
    assert small.has_room
    running = [await begin(small) for _ in range(SEATS)]
    assert small.has_room  # also before the engine has made a step
    for generation in running:
        await anext(generation)
    assert small.has_room
    waiting = [await begin(small) for _ in range(3)]
    assert not small.has_room  # there are more than it runs at once
    await until(lambda: told_waiting(small) == 3)
    assert not small.has_room
    for generation in waiting:
        await generation.aclose()
    await until(lambda: small.has_room)
    for generation in running:
        await generation.aclose()


async def test_requests_that_left_while_they_waited_are_forgotten_by_an_idle_engine(small: EmbeddedEngine) -> None:
    """Without work it makes no step, and so doesn't tell that nobody waits any more."""
    everybody = [await begin(small) for _ in range(SEATS + 2)]
    await until(lambda: told_waiting(small) == 2)
    for generation in everybody:
        await generation.aclose()
    alone = await begin(small)
    assert small.has_room
    await alone.aclose()


async def test_what_waits_for_another_reason_than_a_seat_is_seen_too(small: EmbeddedEngine) -> None:
    """For memory, for a grammar: the number of requests doesn't show it, and the engine's word is taken."""
    running = await begin(small)
    await anext(running)
    small._require().core.output_processor.waiting[0] = 1
    assert not small.has_room
    await until(lambda: small.has_room)  # its next step says otherwise
    await running.aclose()

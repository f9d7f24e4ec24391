"""A front end that is slower than its engine: others get their turn, what waits leaves together, the engine waits."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import pytest
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.tokenizers import TokenizerLike, get_tokenizer
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason

from engine.base import Delta, TokenCounts
from engine.demo import MODEL_DIR
from engine.embedded import EmbeddedEngine
from engine.generation import EmbeddedGeneration
from engine.vllm_internals.core import Core
from engine.vllm_internals.output_handler import AHEAD_SECONDS_MAX, OutputHandler
from engine.vllm_internals.outputs import Inbox, StepProcessor
from tests.engine.conftest import Start, read


class Client:
    """The engine's side, played by hand: what vLLM's client has of it as far as the handler looks."""

    def __init__(self) -> None:
        self.outputs_queue: asyncio.Queue[EngineCoreOutputs | Exception] = asyncio.Queue()
        self.told: list[tuple[object, ...]] = []

    async def get_output_async(self) -> EngineCoreOutputs:
        outputs = await self.outputs_queue.get()
        if isinstance(outputs, Exception):
            raise outputs
        return outputs

    async def abort_requests_async(self, request_ids: list[str]) -> None:
        self.told.append(("abort", *request_ids))

    async def pause_scheduler_async(self, mode: str, clear_cache: bool) -> None:
        self.told.append(("pause", mode, clear_cache))

    async def resume_scheduler_async(self) -> None:
        self.told.append(("resume", self.outputs_queue.qsize()))

    def step(self, requests: int, token: int = 300, age: float = 0.0, finish: FinishReason | None = None) -> None:
        outputs = [EngineCoreOutput(f"r{index}", [token], finish_reason=finish) for index in range(requests)]
        self.outputs_queue.put_nowait(EngineCoreOutputs(outputs=outputs, timestamp=time.monotonic() - age))


class Scene:
    """A handler with some running requests, whose deltas are kept."""

    def __init__(self, tokenizer: TokenizerLike, requests: int, stops_engine: bool) -> None:
        self.client = Client()
        self.requests = requests
        self.recorded = 0
        self.inboxes = [Inbox(1, True) for _ in range(requests)]
        self.deltas: list[list[Delta]] = [[] for _ in range(requests)]
        processor = StepProcessor(tokenizer, log_stats=False)
        for index, inbox in enumerate(self.inboxes):
            params = SamplingParams(max_tokens=10_000, output_kind=RequestOutputKind.DELTA)
            request = EngineCoreRequest(f"r{index}", [5, 6, 7], None, params, None, 0.0, None, None, None)
            request.external_req_id = request.request_id
            processor.add_request(request, None, None, 0, inbox)

        def record(outputs: EngineCoreOutputs, _: object) -> None:
            self.recorded += 1

        self.handler = OutputHandler(
            self.client,  # type: ignore[arg-type]  # what it needs of vLLM's is there
            processor,
            record,
            counts=False,
            ages=True,
            stops_engine=stops_engine,
        )

    def counts(self) -> list[int]:
        return [sum(inbox.completion) for inbox in self.inboxes]

    async def until(self, reached: Callable[[], bool]) -> int:
        """How often another task got its turn meanwhile."""
        turns = 0
        while not reached():
            turns += 1
            await asyncio.sleep(0)
        return turns


@pytest.fixture(scope="module")
def tokenizer() -> TokenizerLike:
    return get_tokenizer(str(MODEL_DIR))


@asynccontextmanager
async def running(tokenizer: TokenizerLike, requests: int = 1, stops_engine: bool = True) -> AsyncIterator[Scene]:
    scene = Scene(tokenizer, requests, stops_engine)

    async def reader(index: int) -> None:
        generation = EmbeddedGeneration(cast(Core, None), scene.inboxes[index], [5, 6, 7])
        await generation.forward(lambda delta: scene.deltas[index].append(delta) is None)

    tasks = [asyncio.create_task(reader(index)) for index in range(requests)]
    tasks.append(asyncio.create_task(scene.handler.run()))
    await asyncio.sleep(0)
    try:
        yield scene
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_step_after_the_other_is_a_delta_each(tokenizer: TokenizerLike) -> None:
    async with running(tokenizer, 3) as scene:

        def counted(count: int) -> bool:
            return scene.counts() == [count] * 3

        for count in range(1, 6):
            scene.client.step(3)
            await scene.until(partial(counted, count))
        assert [len(deltas) for deltas in scene.deltas] == [5, 5, 5]
        assert scene.recorded == 5


async def test_tokens_that_wait_leave_together_and_in_their_order(tokenizer: TokenizerLike) -> None:
    async with running(tokenizer) as scene:
        text = "one two three four five six seven eight nine ten"
        for token in tokenizer.encode(text, add_special_tokens=False):
            scene.client.step(1, token)
        scene.client.step(1, finish=FinishReason.LENGTH)
        await scene.until(lambda: scene.inboxes[0].unfinished == 0)
        (deltas,) = scene.deltas
        assert "".join(delta.text for delta in deltas).startswith(text)
        assert deltas[-1].finish_reason == "length"
        assert len(deltas) < 5


async def test_others_get_their_turn_while_much_is_waiting(tokenizer: TokenizerLike) -> None:
    async with running(tokenizer, 64) as scene:
        for _ in range(400):
            scene.client.step(64)
        turns = await scene.until(lambda: scene.counts() == [400] * 64)
        assert turns >= 3
        assert scene.client.told == []


async def test_an_engine_that_is_ahead_waits_until_all_is_taken(tokenizer: TokenizerLike) -> None:
    async with running(tokenizer) as scene:
        for _ in range(50):
            scene.client.step(1, age=AHEAD_SECONDS_MAX + 1)
        await scene.until(lambda: len(scene.client.told) == 2)
        assert scene.client.told == [("pause", "keep", False), ("resume", 0)]
        assert AHEAD_SECONDS_MAX < scene.handler.lag_seconds < AHEAD_SECONDS_MAX + 60
        scene.client.step(1)
        await scene.until(lambda: scene.counts() == [51])
        assert scene.handler.lag_seconds < AHEAD_SECONDS_MAX


async def test_an_engine_with_other_front_ends_is_not_stopped(tokenizer: TokenizerLike) -> None:
    async with running(tokenizer, stops_engine=False) as scene:
        for _ in range(20):
            scene.client.step(1, age=AHEAD_SECONDS_MAX + 1)
        await scene.until(lambda: scene.counts() == [20])
        assert scene.client.told == []
        assert scene.handler.lag_seconds > AHEAD_SECONDS_MAX


async def test_readers_get_what_came_before_an_error_and_then_the_error(tokenizer: TokenizerLike) -> None:
    async with running(tokenizer) as scene:
        scene.client.step(1)
        scene.client.step(1)
        scene.client.outputs_queue.put_nowait(RuntimeError("the engine is gone"))
        await scene.until(lambda: scene.inboxes[0].error is not None)
        assert sum(bool(delta.text) for delta in scene.deltas[0]) >= 1
        assert scene.counts() == [2]


async def test_a_real_engine_goes_on_after_it_was_stopped(engine: EmbeddedEngine, start: Start) -> None:
    generations = [await start(max_tokens=400, ignore_eos=True) for _ in range(4)]
    await anext(generations[0])
    time.sleep(AHEAD_SECONDS_MAX + 0.5)  # the loop stands still, and the engine doesn't
    answers = await asyncio.gather(*map(read, generations))
    assert [deltas[-1].finish_reason for deltas in answers] == ["length"] * 4
    assert [generation.counts for generation in generations] == [
        TokenCounts(generation.counts.prompt, generation.counts.cached, 400) for generation in generations
    ]
    while await engine._require().core.is_paused():
        await asyncio.sleep(0.01)
    assert (await read(await start(max_tokens=3, ignore_eos=True)))[-1].completion_tokens == 3

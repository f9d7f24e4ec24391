"""vLLM's queue has an end, and what comes then is told before anything is done for it."""

import asyncio
from collections.abc import Iterator

import pytest

from engine.embedded import EmbeddedEngine
from engine.errors import EngineOverloaded
from engine.vllm_internals.core import QUEUE_DEPTH
from tests.engine.conftest import Start, read


def scheduler_config(engine: EmbeddedEngine) -> object:
    return engine._require().core.vllm_config.scheduler_config


def test_the_queue_holds_a_few_times_what_runs(engine: EmbeddedEngine) -> None:
    config = vars(scheduler_config(engine))
    assert config["max_num_queued_reqs"] == QUEUE_DEPTH * config["max_num_seqs"]


@pytest.fixture(params=[{"max_num_queued_reqs": 2}, {"max_num_queued_tokens": 1}], ids=["requests", "tokens"])
def small_queue(engine: EmbeddedEngine, request: pytest.FixtureRequest) -> Iterator[None]:
    """The session's engine with a smaller limit: vLLM reads it anew for each request."""
    config = vars(scheduler_config(engine))
    before = dict(config)
    config.update(request.param)
    yield
    config.update(before)


@pytest.mark.usefixtures("small_queue")
async def test_what_does_not_fit_is_refused_and_the_rest_goes_on(start: Start) -> None:
    """All start in one turn of the loop, so that none is out of prefill before the last one comes."""
    results = await asyncio.gather(*(start(max_tokens=20, ignore_eos=True) for _ in range(6)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    taken = [result for result in results if not isinstance(result, BaseException)]
    assert refused
    assert taken
    assert all(isinstance(error, EngineOverloaded) for error in refused)
    for generation in taken:
        assert (await read(generation))[-1].finish_reason == "length"
    again = await start(max_tokens=1)
    assert await read(again)

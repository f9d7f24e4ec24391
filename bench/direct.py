"""`AsyncLLM.generate` called directly, without a server: the floor under everything that is written with it.

A process of its own. Each line on stdin is a load (`Order` as JSON), each line `RESULT {json}` on stdout its outcome.
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from bench import engine_settings
from bench.figures import Load

MARK = "RESULT "


@dataclass(frozen=True, slots=True)
class Order:
    """`prompts` are token ids. `requests_per_second` 0: as fast as `streams` at a time allow."""

    prompts: list[list[int]]
    streams: int
    tokens: int
    requests_per_second: float


class Driver:
    """Runs orders. Nothing is measured but what `AsyncLLM` needs and one clock reading for each delta."""

    def __init__(self, engine: AsyncLLM) -> None:
        self._engine = engine
        self._count = 0

    async def run(self, order: Order) -> Load:
        self._first: list[float] = []
        self._gaps: list[float] = []
        self._tokens = 0
        started = time.perf_counter()
        if order.requests_per_second:
            await self._at_random(order)
        else:
            waiting = iter(order.prompts)
            await asyncio.gather(*(self._one_after_the_other(waiting, order.tokens) for _ in range(order.streams)))
        seconds = time.perf_counter() - started
        return Load(
            seconds, len(self._first), len(order.prompts) - len(self._first), self._tokens, self._first, self._gaps
        )

    async def _at_random(self, order: Order) -> None:
        rng = random.Random(0)
        async with asyncio.TaskGroup() as group:
            for prompt in order.prompts:
                group.create_task(self._request(prompt, order.tokens))
                await asyncio.sleep(rng.expovariate(order.requests_per_second))

    async def _one_after_the_other(self, waiting: "object", tokens: int) -> None:
        for prompt in waiting:  # type: ignore[attr-defined]  # one iterator that all streams share
            await self._request(prompt, tokens)

    async def _request(self, prompt: list[int], tokens: int) -> None:
        self._count += 1
        params = SamplingParams(max_tokens=tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA)
        last = started = time.perf_counter()
        first = True
        async for output in self._engine.generate(tokens_input(prompt), params, f"direct-{self._count}"):
            now = time.perf_counter()
            (self._first if first else self._gaps).append(now - (started if first else last))
            last, first = now, False
            self._tokens += len(output.outputs[0].token_ids)


async def main() -> None:
    arguments = AsyncEngineArgs(
        model=str(engine_settings.MODEL),
        max_model_len=engine_settings.CONTEXT_LENGTH,
        distributed_executor_backend=engine_settings.EXECUTOR,
        **engine_settings.OPTIONS,
    )
    engine = AsyncLLM.from_engine_args(arguments)
    driver = Driver(engine)
    print(MARK + "{}", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        load = await driver.run(Order(**json.loads(line)))
        print(MARK + json.dumps(asdict(load)), flush=True)
    engine.shutdown()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())

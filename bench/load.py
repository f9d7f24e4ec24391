"""The load: vLLM's benchmark client (what `vllm bench serve` runs) and, for answers in one piece, OpenAI's SDK."""

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from vllm.benchmarks.datasets import get_samples
from vllm.benchmarks.serve import TaskType, add_cli_args, benchmark
from vllm.tokenizers import get_tokenizer
from vllm.utils.argparse_utils import FlexibleArgumentParser

from bench import agents
from bench.figures import Load
from bench.scenarios import Scenario
from bench.target import PATH, Target


def prompts(scenario: Scenario, model: Path, seed: int) -> list[Any]:
    """vLLM's samples: random tokens, the same for each seed. The same prompts go to every server."""
    if scenario.client == "agents":
        return agents.talks(scenario, model, seed)
    if scenario.prefixes:
        wanted = [
            "--dataset-name=prefix_repetition",
            f"--prefix-repetition-prefix-len={scenario.prompt_tokens - 64}",
            "--prefix-repetition-suffix-len=64",
            f"--prefix-repetition-num-prefixes={scenario.prefixes}",
            f"--prefix-repetition-output-len={scenario.tokens}",
        ]
    else:
        wanted = [
            "--dataset-name=random",
            f"--random-input-len={scenario.prompt_tokens}",
            f"--random-output-len={scenario.tokens}",
        ]
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    arguments = parser.parse_args(
        ["--backend=openai-chat", f"--num-prompts={scenario.requests}", f"--seed={seed}", *wanted]
    )
    with _quiet():
        return list(get_samples(arguments, get_tokenizer(str(model))))


def prepare(scenario: Scenario, target: Target, model_name: str, samples: list[Any]) -> None:
    """What has happened before the load begins. Blocks."""
    if scenario.client == "agents":
        agents.prepare(scenario, target, model_name, samples)


def run(scenario: Scenario, target: Target, model_name: str, samples: list[Any], requests_per_second: float) -> Load:
    """Blocks until every request is answered."""
    if scenario.client == "agents":
        return agents.run(scenario, target, model_name, samples)
    if scenario.client == "sdk":
        return asyncio.run(_with_sdk(scenario, target, model_name, samples))
    with _quiet():
        result = asyncio.run(_with_vllm(scenario, target, model_name, samples, requests_per_second))
    return Load(
        seconds=result["duration"],
        completed=result["completed"],
        failed=result["failed"],
        tokens=result["total_output_tokens"],
        first_token=[seconds for seconds in result["ttfts"] if seconds],
        between_tokens=[gap for gaps in result["itls"] for gap in gaps],
        error=next((error for error in result["errors"] if error), ""),
    )


async def _with_vllm(
    scenario: Scenario, target: Target, model_name: str, samples: list[Any], requests_per_second: float
) -> dict[str, Any]:
    result: dict[str, Any] = await benchmark(
        task_type=TaskType.GENERATION,
        endpoint_type="openai-chat",
        api_url=target.url + PATH,
        base_url=target.url,
        model_id=model_name,
        model_name=model_name,
        tokenizer=None,
        input_requests=samples,
        logprobs=None,
        request_rate=requests_per_second or float("inf"),
        burstiness=1.0,
        disable_tqdm=True,
        num_warmups=0,
        profile=False,
        selected_percentile_metrics=["ttft"],
        selected_percentiles=[99.0],
        ignore_eos=scenario.ignore_eos,
        goodput_config_dict={},
        max_concurrency=scenario.streams or None,
        lora_modules=None,
        extra_headers={"Authorization": f"Bearer {target.key}"},
        extra_body={"temperature": 1.0, **scenario.body},
        ready_check_timeout_sec=0,
    )
    return result


async def _with_sdk(scenario: Scenario, target: Target, model_name: str, samples: list[Any]) -> Load:
    latencies: list[float] = []
    tokens = failed = 0
    waiting = iter(samples)
    async with AsyncOpenAI(base_url=f"{target.url}/v1", api_key=target.key, max_retries=0) as client:

        async def caller() -> None:
            nonlocal tokens, failed
            for sample in waiting:
                started = time.perf_counter()
                try:
                    answer = await client.chat.completions.create(
                        model=model_name,
                        messages=[{"role": "user", "content": sample.prompt}],
                        max_completion_tokens=scenario.tokens,
                        extra_body={"ignore_eos": scenario.ignore_eos, **scenario.body},
                    )
                except Exception:
                    failed += 1
                    continue
                latencies.append(time.perf_counter() - started)
                tokens += answer.usage.completion_tokens if answer.usage else 0

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(scenario.streams)))
    return Load(time.perf_counter() - started, len(latencies), failed, tokens, latencies, [])


@contextlib.contextmanager
def _quiet() -> Any:
    """vLLM's client prints a page for each run."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield

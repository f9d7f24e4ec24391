"""What a running request gives: text, counts, choices, constraints, and an end when it is aborted."""

import asyncio
import json
import re
from collections.abc import Sequence

import pytest
from prometheus_client import REGISTRY
from vllm.sampling_params import SamplingParams

from engine.base import Delta, GenerationRequest, JSONValue, Prompt, ResponseFormat, Sampling
from engine.embedded import EmbeddedEngine
from engine.errors import EngineDead, PromptError
from engine.rendering import rendered
from engine.tokens import TokenLogprobs
from tests.engine.conftest import LLAMA, Start, chat, read, text_of

SCHEMA: dict[str, JSONValue] = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "size": {"enum": [1, 2, 3]}},
    "required": ["colour", "size"],
    "additionalProperties": False,
}

# Nothing that the demo model was taught, not even how to say that it doesn't know: there is no one likely answer.
UNKNOWN = [900, 33, 512, 64, 77, 1500, 301]


def metric(name: str, engine: EmbeddedEngine, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, {"model_name": engine.spec.source, "engine": "0", **labels})
    assert value is not None, f"{name} is not on the page"
    return value


@pytest.fixture
def unknown(engine: EmbeddedEngine) -> Prompt:
    return engine.renderer(LLAMA).token_ids(UNKNOWN)


async def test_generation_ends_with_counts_and_a_reason(start: Start) -> None:
    generation = await start(temperature=0)
    deltas = await read(generation)
    assert deltas[-1].finish_reason in ("stop", "length")
    assert all(delta.finish_reason is None for delta in deltas[:-1])
    assert deltas[-1].completion_tokens == generation.counts.completion > 0
    assert [d.completion_tokens for d in deltas] == sorted(d.completion_tokens for d in deltas)
    assert generation.counts.prompt > 5


async def test_max_tokens_ends_with_length(start: Start) -> None:
    generation = await start(max_tokens=7, ignore_eos=True)
    deltas = await read(generation)
    assert deltas[-1].finish_reason == "length"
    assert generation.counts.completion == 7


async def test_whole_answer_is_the_streamed_one(start: Start) -> None:
    streamed = await read(await start(temperature=0))
    whole = await read(await start(temperature=0, stream=False))
    assert len(whole) == 1
    assert whole[0].text == text_of(streamed)
    assert whole[0].completion_tokens == streamed[-1].completion_tokens


async def test_stop_string_ends_the_text_before_it(start: Start) -> None:
    full = text_of(await read(await start(temperature=0)))
    stop = full[3:6]
    deltas = await read(await start(temperature=0, stop=(stop, "never seen")))
    assert text_of(deltas) == full[: full.index(stop)]
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].stop_reason == stop


async def test_choices_are_numbered_and_counted_apart(start: Start, unknown: Prompt) -> None:
    generation = await start(prompt=unknown, n=3, temperature=2.0, max_tokens=12, ignore_eos=True)
    deltas = await read(generation)
    assert {delta.index for delta in deltas} == {0, 1, 2}
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["length"] * 3
    assert generation.counts.completion == 36
    assert len({text_of(deltas, index) for index in range(3)}) > 1


async def test_greedy_choices_are_equal(start: Start) -> None:
    deltas = await read(await start(n=2, temperature=0, max_tokens=8))
    assert text_of(deltas, 0) == text_of(deltas, 1)


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1, 2**64 - 1, -1, -(2**63)])
async def test_seed_repeats(start: Start, unknown: Prompt, seed: int) -> None:
    options = {"seed": seed, "temperature": 2.0, "max_tokens": 12, "ignore_eos": True, "n": 2}
    first, second = (
        await read(await start(prompt=unknown, **options)),
        await read(await start(prompt=unknown, **options)),
    )
    assert [text_of(first, index) for index in (0, 1)] == [text_of(second, index) for index in (0, 1)]


async def test_seeds_differ(start: Start, unknown: Prompt) -> None:
    options = {"temperature": 2.0, "max_tokens": 12, "ignore_eos": True}
    texts = [text_of(await read(await start(prompt=unknown, seed=seed, **options))) for seed in range(5)]
    assert len(set(texts)) > 1


async def test_top_k_of_one_is_greedy(start: Start) -> None:
    greedy = text_of(await read(await start(temperature=0)))
    assert text_of(await read(await start(temperature=1.7, top_k=1))) == greedy


async def test_temperature_near_zero_is_accepted(start: Start) -> None:
    assert await read(await start(temperature=0.001, max_tokens=2))


def rows_of(deltas: Sequence[Delta]) -> list[TokenLogprobs]:
    return [row for delta in deltas for row in delta.logprobs or ()]


async def test_logprobs_carry_text_and_alternatives(engine: EmbeddedEngine, start: Start) -> None:
    deltas = await read(await start(temperature=0, logprobs=3, max_tokens=6, ignore_eos=True))
    rows = rows_of(deltas)
    assert len(rows) == 6
    for row in rows:
        assert len(row.ids) == len(row.logprobs) == 4
        assert all(logprob <= 0 for logprob in row.logprobs)
        assert list(row.logprobs[1:]) == sorted(row.logprobs[1:], reverse=True)
        assert row.ids[1] == row.ids[0]  # greedy
    tokens = [engine.vocabulary.token(row.ids[0]) for row in rows]
    assert "".join(token.text for token in tokens if not token.special) == text_of(deltas)


async def test_logprobs_are_those_of_vllms_own_path(engine: EmbeddedEngine, start: Start, unknown: Prompt) -> None:
    params = SamplingParams(max_tokens=12, temperature=0, logprobs=4, ignore_eos=True)
    core = engine._require().core
    async for output in core.generate(rendered(unknown).engine_input, params, "vllms-own"):
        theirs = output.outputs[0]
    rows = rows_of(await read(await start(prompt=unknown, max_tokens=12, temperature=0, logprobs=4, ignore_eos=True)))
    assert [row.ids[0] for row in rows] == list(theirs.token_ids)
    for row, found in zip(rows, theirs.logprobs, strict=True):
        assert list(row.ids[1:]) == sorted(found, key=lambda token_id: found[token_id].rank)[:4]
        for token_id, logprob in zip(row.ids, row.logprobs, strict=True):
            assert logprob == pytest.approx(found[token_id].logprob, abs=1e-3)  # in another batch


async def test_logprobs_of_the_chosen_token_alone(start: Start) -> None:
    wide = await start(logprobs=20, max_tokens=3, ignore_eos=True)  # the engine gives both as many
    rows = rows_of(await read(await start(logprobs=0, max_tokens=3, ignore_eos=True)))
    assert [len(row.ids) for row in rows] == [1, 1, 1]
    assert [len(row.ids) for row in rows_of(await read(wide))] == [21, 21, 21]


async def test_what_was_forbidden_has_a_finite_logprob(engine: EmbeddedEngine, start: Start) -> None:
    prompt = await chat(engine, "A code, please.", response_format=ResponseFormat("regex", regex="a"))
    rows = rows_of(await read(await start(prompt=prompt, logprobs=5)))
    assert min(logprob for row in rows for logprob in row.logprobs) >= -9999


async def test_each_part_of_a_character_has_bytes_of_its_own(engine: EmbeddedEngine, start: Start) -> None:
    prompt = await chat(engine, "A ticket.", response_format=ResponseFormat("regex", regex="🎟{3}"))
    deltas = await read(await start(prompt=prompt, logprobs=0))
    tokens = [engine.vocabulary.token(row.ids[0]) for row in rows_of(deltas)]
    parts = [token for token in tokens if not token.special]
    assert text_of(deltas) == "🎟" * 3
    assert len(parts) > 3
    assert all(parts)
    assert b"".join(token.data for token in parts) == text_of(deltas).encode()
    assert all("\\x" in token.text for token in parts)


async def test_a_slow_reader_gets_every_tokens_logprobs(start: Start) -> None:
    generation = await start(max_tokens=30, ignore_eos=True, logprobs=2)
    while generation.counts.completion < 30:
        await asyncio.sleep(0.02)
    deltas = await read(generation)
    assert len(deltas) == 1
    assert [len(row.ids) for row in rows_of(deltas)] == [3] * 30


async def test_json_schema_holds(engine: EmbeddedEngine, start: Start) -> None:
    prompt = await chat(engine, "A JSON object, please.", response_format=ResponseFormat("json_schema", SCHEMA))
    answer = json.loads(text_of(await read(await start(prompt=prompt, max_tokens=100))))
    assert answer["colour"] in ("red", "blue")
    assert answer["size"] in (1, 2, 3)


async def test_regex_holds(engine: EmbeddedEngine, start: Start) -> None:
    wanted = ResponseFormat("regex", regex=r"[a-c]{3}-[0-9]{2}")
    prompt = await chat(engine, "A code, please.", response_format=wanted)
    assert re.fullmatch(r"[a-c]{3}-[0-9]{2}", text_of(await read(await start(prompt=prompt))))


async def test_grammar_that_cannot_be_compiled_is_the_clients_error(engine: EmbeddedEngine) -> None:
    with pytest.raises(PromptError) as caught:
        await chat(engine, "Hello!", response_format=ResponseFormat("regex", regex="(unclosed"))
    assert caught.value.param == "response_format"


async def test_logit_bias_bans_and_forces(engine: EmbeddedEngine, start: Start) -> None:
    deltas = await read(await start(logit_bias={100: 100.0}, max_tokens=3, logprobs=0, temperature=0))
    assert [row.ids[0] for row in rows_of(deltas)] == [100, 100, 100]
    with pytest.raises(PromptError) as caught:
        await start(logit_bias={10**7: 1.0})
    assert caught.value.param == "logit_bias"


async def test_prompt_is_cached_the_second_time(start: Start) -> None:
    said = "The same long beginning again and again. " * 40
    await read(await start(said, max_tokens=1))
    second = await start(said, max_tokens=1)
    await read(second)
    assert 0 < second.counts.cached < second.counts.prompt


async def test_slow_reader_gets_merged_deltas(start: Start) -> None:
    generation = await start(max_tokens=60, ignore_eos=True)
    while generation.counts.completion < 60:
        await asyncio.sleep(0.02)
    deltas = await read(generation)
    assert len(deltas) == 1
    assert (deltas[0].completion_tokens, deltas[0].finish_reason) == (60, "length")


async def test_abort_stops_the_engine_and_keeps_the_counts(engine: EmbeddedEngine, start: Start) -> None:
    generation = await start(max_tokens=3000, ignore_eos=True)
    read_tokens = (await anext(generation)).completion_tokens
    while generation.counts.completion < read_tokens + 5:
        await asyncio.sleep(0.01)
    await generation.aclose()
    await generation.aclose()
    counts = generation.counts
    assert counts.completion >= read_tokens + 5
    await asyncio.sleep(0.5)
    assert generation.counts == counts
    assert metric("vllm:num_requests_running", engine) == 0
    with pytest.raises(StopAsyncIteration):
        await anext(generation)


async def test_cancelled_reader_can_abort(engine: EmbeddedEngine, start: Start) -> None:
    generation = await start(max_tokens=3000, ignore_eos=True)

    async def reader() -> None:
        try:
            await read(generation)
        finally:
            await generation.aclose()

    task = asyncio.create_task(reader())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    counts = generation.counts
    assert 0 < counts.completion < 3000
    await asyncio.sleep(0.5)
    assert generation.counts == counts
    assert metric("vllm:num_requests_running", engine) == 0


async def test_choices_abort_together(engine: EmbeddedEngine, start: Start) -> None:
    generation = await start(n=4, max_tokens=3000, ignore_eos=True)
    await anext(generation)
    await generation.aclose()
    await asyncio.sleep(0.5)
    assert metric("vllm:num_requests_running", engine) == 0
    assert 1 <= generation.counts.completion < 4 * 3000


async def test_metrics_are_on_the_default_page(engine: EmbeddedEngine, start: Start) -> None:
    await asyncio.sleep(0.3)
    before = metric("vllm:generation_tokens_total", engine)
    answered = metric("vllm:request_success_total", engine, finished_reason="length")
    firsts = metric("vllm:time_to_first_token_seconds_count", engine)
    gaps = metric("vllm:inter_token_latency_seconds_count", engine)  # vLLM, asked directly, counts them
    await read(await start(max_tokens=9, ignore_eos=True))
    await asyncio.sleep(0.3)
    assert metric("vllm:generation_tokens_total", engine) == before + 9
    assert metric("vllm:request_success_total", engine, finished_reason="length") == answered + 1
    assert metric("vllm:time_to_first_token_seconds_count", engine) == firsts + 1
    assert metric("vllm:inter_token_latency_seconds_count", engine) == gaps


async def test_many_requests_at_once(start: Start) -> None:
    generations = [await start(max_tokens=8, ignore_eos=True) for _ in range(40)]
    answers = await asyncio.gather(*(read(generation) for generation in generations))
    assert all(deltas[-1].completion_tokens == 8 for deltas in answers)


async def test_empty_and_overlong_prompts_are_the_clients_errors(engine: EmbeddedEngine) -> None:
    renderer = engine.renderer(LLAMA)
    for prompt in (renderer.token_ids([]), renderer.token_ids([5] * (engine.context_length + 1))):
        with pytest.raises(PromptError):
            await engine.generate(GenerationRequest("refused", prompt, Sampling(max_tokens=1)))


async def test_an_engine_that_has_not_started_is_dead(engine: EmbeddedEngine) -> None:
    other = EmbeddedEngine(engine.spec)
    with pytest.raises(EngineDead):
        await other.generate(GenerationRequest("early", Prompt(1, None), Sampling(max_tokens=1)))


async def test_forwarding_gives_what_iterating_gives(start: Start) -> None:
    iterated = await read(await start(temperature=0))
    forwarded: list[Delta] = []
    generation = await start(temperature=0)
    await generation.forward(lambda delta: forwarded.append(delta) is None)
    assert text_of(forwarded) == text_of(iterated)
    assert forwarded[-1].finish_reason == iterated[-1].finish_reason
    assert generation.counts.completion == forwarded[-1].completion_tokens
    await generation.forward(lambda delta: pytest.fail("it has ended"))
    assert await read(generation) == []


async def test_forwarding_all_choices(start: Start) -> None:
    deltas: list[Delta] = []
    generation = await start(n=3, max_tokens=5, ignore_eos=True)
    await generation.forward(lambda delta: deltas.append(delta) is None)
    assert [sum(d.index == index and d.finish_reason is not None for d in deltas) for index in range(3)] == [1, 1, 1]
    assert generation.counts.completion == 15


async def test_who_has_enough_iterates_on(start: Start) -> None:
    whole = text_of(await read(await start(temperature=0)))
    generation = await start(temperature=0)
    taken: list[Delta] = []

    def take(delta: Delta) -> bool:
        taken.append(delta)
        return len(taken) % 2 == 0

    while taken == [] or taken[-1].finish_reason is None:
        await generation.forward(take)
        taken += [await anext(generation)] if taken[-1].finish_reason is None else []
    assert text_of(taken) == whole


async def test_what_a_reader_raises_is_its_own(start: Start) -> None:
    def take(delta: Delta) -> bool:
        raise ZeroDivisionError

    generation, other = await start(max_tokens=20, ignore_eos=True), await start(max_tokens=20, ignore_eos=True)
    with pytest.raises(ZeroDivisionError):
        await generation.forward(take)
    await generation.aclose()
    assert (await read(other))[-1].finish_reason == "length"


async def test_a_cancelled_reader_gets_no_more(start: Start) -> None:
    deltas: list[Delta] = []
    generation = await start(max_tokens=200, ignore_eos=True)
    reading = asyncio.create_task(generation.forward(lambda delta: deltas.append(delta) is None))
    while not deltas:
        await asyncio.sleep(0.001)
    reading.cancel()
    seen = len(deltas)
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert len(deltas) == seen
    await generation.aclose()
    assert generation.counts.completion >= deltas[-1].completion_tokens

"""The scripted engine's faults, and that it needs no vLLM."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from engine.base import (
    ChatFormat,
    Conversation,
    EmbeddingRequest,
    EngineSpec,
    EngineState,
    Generation,
    GenerationRequest,
    Sampling,
)
from engine.errors import EngineDead, EngineOverloaded, EngineStartError, GenerationFailed, PromptError
from engine.factory import create_engine
from engine.script import DIE, HANG, REJECT, RequestScript, Script, Step, emit, fail, finish, sleep
from engine.scripted import ScriptedEngine


async def playing(*requests: RequestScript) -> ScriptedEngine:
    engine = ScriptedEngine(Script(requests))
    await engine.start()
    return engine


async def ask(
    engine: ScriptedEngine, said: str = "hello there", *, stream: bool = True, max_tokens: int = 100, n: int = 1
) -> Generation:
    prompt = await engine.renderer(ChatFormat()).chat(Conversation([{"role": "user", "content": said}]))
    return await engine.generate(GenerationRequest("r", prompt, Sampling(max_tokens, n=n), stream=stream))


async def test_words_are_tokens() -> None:
    engine = await playing(RequestScript((emit("one two three"),), cached=2))
    generation = await ask(engine)
    deltas = [delta async for delta in generation]
    assert [delta.text for delta in deltas] == ["one", " two", " three", ""]
    assert deltas[-1].finish_reason == "stop"
    counts = generation.counts
    assert (counts.prompt, counts.cached, counts.completion) == (3, 2, 3)


async def test_whole_answer_without_streaming() -> None:
    engine = await playing(RequestScript((emit("one two"), Step("call", "f", arguments='{"a": 1}'))))
    (delta,) = [delta async for delta in await ask(engine, stream=False)]
    assert (delta.text, delta.completion_tokens, delta.finish_reason) == ("one two", 4, "tool_calls")
    assert delta.tool_calls[0].arguments == '{"a": 1}'


async def test_max_tokens_and_choices() -> None:
    engine = await playing(RequestScript((emit("one two three"),)))
    generation = await ask(engine, max_tokens=2, n=2)
    reasons = [delta.finish_reason async for delta in generation if delta.finish_reason]
    assert reasons == ["length", "length"]
    assert generation.counts.completion == 4


async def test_requests_wait_for_a_seat_and_the_engine_says_so() -> None:
    engine = ScriptedEngine(Script((RequestScript((emit("one"), HANG)),), max_num_seqs=1))
    await engine.start()
    first = await ask(engine)
    assert (await anext(first)).text == "one"
    assert engine.has_room
    second = await ask(engine)
    await asyncio.sleep(0.01)
    assert not engine.has_room
    assert second.counts.completion == 0
    await first.aclose()
    assert (await anext(second)).text == "one"
    assert engine.has_room
    await second.aclose()


async def test_an_embedding_plays_its_script_in_silence() -> None:
    engine = await playing(RequestScript((emit("one"), sleep(0.01))), RequestScript((fail("broken"),)))
    prompt = await engine.renderer(ChatFormat()).text("three words long")
    request = EmbeddingRequest("e", prompt, 2)
    (delta,) = [delta async for delta in await engine.embed(request)]
    assert (delta.embedding, delta.text, delta.completion_tokens) == ([3.0, 0.0], "", 0)
    with pytest.raises(GenerationFailed):
        await anext(await engine.embed(request))


async def test_failure_comes_after_what_was_emitted() -> None:
    engine = await playing(RequestScript((emit("one two"), fail("broken"))))
    generation = await ask(engine)
    assert [(await anext(generation)).text, (await anext(generation)).text] == ["one", " two"]
    with pytest.raises(GenerationFailed, match="broken"):
        await anext(generation)
    assert generation.counts.completion == 2
    assert engine.state is EngineState.READY


async def test_rejection() -> None:
    engine = await playing(RequestScript((REJECT,)), RequestScript((emit("ok"),)))
    with pytest.raises(EngineOverloaded):
        await ask(engine)
    assert [delta.text async for delta in await ask(engine)] == ["ok", ""]


async def test_death_ends_every_request() -> None:
    engine = await playing(RequestScript((HANG,), match="wait"), RequestScript((emit("one"), DIE)))
    waiting = await ask(engine, "wait")
    dying = await ask(engine)
    assert (await anext(dying)).text == "one"
    for generation in (dying, waiting):
        with pytest.raises(EngineDead):
            await anext(generation)
    assert engine.state is EngineState.DEAD
    with pytest.raises(EngineDead):
        await engine.check()
    with pytest.raises(EngineDead):
        await ask(engine)


async def test_hang_lasts_until_the_abort() -> None:
    engine = await playing(RequestScript((emit("one"), HANG)))
    generation = await ask(engine)
    await anext(generation)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(generation), 0.05)
    assert len(engine.running) == 1
    await generation.aclose()
    await generation.aclose()
    assert not engine.running
    assert generation.counts.completion == 1
    with pytest.raises(StopAsyncIteration):
        await anext(generation)


async def test_it_plays_on_while_nobody_reads() -> None:
    engine = await playing(RequestScript((emit("one two"), sleep(0.02), emit(" three"), finish("length"))))
    generation = await ask(engine)
    await asyncio.sleep(0.1)
    assert generation.counts.completion == 3
    assert [delta.finish_reason async for delta in generation][-1] == "length"


async def test_start_can_fail() -> None:
    engine = ScriptedEngine(Script(start_error="no such device"))
    with pytest.raises(EngineStartError, match="no such device"):
        await engine.start()


async def test_stop_is_idempotent() -> None:
    engine = await playing(RequestScript((HANG,)))
    generation = await ask(engine)
    await engine.stop()
    await engine.stop()
    assert engine.state is EngineState.STOPPED
    with pytest.raises(EngineDead):
        await anext(generation)


async def test_token_ids() -> None:
    renderer = (await playing()).renderer(ChatFormat())
    assert renderer.token_ids([1, 2, 3]).tokens == 3
    with pytest.raises(PromptError):
        renderer.token_ids([-1])


@pytest.mark.parametrize("suffix", [".toml", ".json"])
async def test_script_files(tmp_path: Path, suffix: str) -> None:
    texts = {
        ".toml": '[[request]]\ncached = 1\nsteps = [{ emit = "hi you" }, { reason = "hm" }, { finish = "length" }]',
        ".json": '{"request": [{"cached": 1, "steps": [{"emit": "hi you"}, {"reason": "hm"}, {"finish": "length"}]}]}',
    }
    path = tmp_path / f"script{suffix}"
    path.write_text(texts[suffix])
    engine = create_engine(EngineSpec(f"scripted:{path}"))
    assert isinstance(engine, ScriptedEngine)
    await engine.start()
    generation = await ask(engine)
    deltas = [delta async for delta in generation]
    assert [delta.reasoning for delta in deltas] == [None, None, "hm", None]
    assert deltas[-1].finish_reason == "length"
    counts = generation.counts
    assert (counts.completion, counts.reasoning, counts.cached) == (3, 1, 1)


@pytest.mark.parametrize("module", ["engine", "engine.base", "engine.scripted", "engine.factory", "engine.embedded"])
def test_importing_needs_no_vllm(module: str) -> None:
    code = f"import sys; import {module}; assert not {{'vllm', 'torch', 'transformers'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)

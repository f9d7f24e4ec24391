"""What a generation gives, beside what vLLM's own `AsyncLLM.generate` gives for the same request, on the same engine.

The requests are drawn at random. Each side has a prefix cache of its own and sees the same requests in the same order,
one at a time, so that both meet the same engine.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from engine.base import (
    ChatFormat,
    Conversation,
    Delta,
    FinishReason,
    GenerationRequest,
    JSONValue,
    Prompt,
    ResponseFormat,
    Sampling,
)
from engine.embedded import EmbeddedEngine
from engine.rendering import rendered
from engine.sampling import sampling_params
from tests.engine.conftest import LLAMA, WEATHER, read

CASES = 12  # in each test

WORD = 900  # a token that is a word: after half a character vLLM's detokenizer gives the prompt again
SAID = ("Hello!", "What is the capital of France?", "Tell me a story about the sea.", "Zähle bis zehn. 🎟️", "x = [1, 2")
PIECES = (" the", "e", ".", "is", "a", "Hello", "I don't", "\n", " y", "never seen")
WEATHERS = ("What is the weather in Paris?", "How is the weather in Oslo today?", "Hello!")
FORMATS = (
    ResponseFormat("json_object"),
    ResponseFormat("json_schema", json_schema={"enum": ["red", "blue", {"size": [1, 2]}]}),
    ResponseFormat(
        "json_schema", json_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    ),
    ResponseFormat("regex", regex="(ab|[0-9]{2})+é?"),
)
FORCED: Mapping[str, JSONValue] = {"type": "function", "function": {"name": "get_weather"}}


@dataclass(slots=True)
class Choice:
    """One choice as a reader has it at its end; `logprobs` by token id, for each token."""

    text: str = ""
    tokens: int = 0
    finish: FinishReason | None = None
    stop: int | str | None = None
    logprobs: list[dict[int, float]] = field(default_factory=list)
    calls: list[tuple[str, object]] = field(default_factory=list)


def drawn(rng: random.Random) -> dict[str, object]:
    """Fields of a `Sampling`: of most kinds of request that there are."""
    max_tokens = rng.choice((1, 2, 7, 24, 40))
    # Always a seed: of several choices the likeliest token is drawn too, from those that are equally likely.
    fields: dict[str, object] = {
        "max_tokens": max_tokens,
        "n": rng.choice((1, 1, 1, 2, 3)),
        "seed": rng.randrange(2**63),
    }
    more: dict[str, object] = {}
    if rng.random() < 0.5:
        fields["temperature"] = rng.choice((0.3, 1.0, 2.0, 40.0))
        fields |= {"top_p": rng.choice((1.0, 0.8)), "top_k": rng.choice((0, 0, 20)), "min_p": rng.choice((0.0, 0.05))}
    else:
        fields["temperature"] = 0.0
    if rng.random() < 0.5:
        fields["stop"] = tuple(rng.sample(PIECES, rng.randrange(1, 4)))
    if rng.random() < 0.3:
        more["stop_token_ids"] = [rng.randrange(2000) for _ in range(100)]
    if rng.random() < 0.3:
        more["min_tokens"] = rng.randrange(max_tokens + 1)
    if rng.random() < 0.2:
        more["skip_special_tokens"] = False
    if rng.random() < 0.3:
        fields["ignore_eos"] = True
    if rng.random() < 0.4:
        fields["logprobs"] = rng.choice((0, 1, 5))
    if rng.random() < 0.2:
        fields["logit_bias"] = {rng.randrange(2000): rng.choice((-100.0, 5.0)) for _ in range(5)}
    if rng.random() < 0.2:
        fields |= {"frequency_penalty": rng.choice((-1.0, 1.5)), "repetition_penalty": 1.2}
    return fields | {"more": more}


async def ours(
    engine: EmbeddedEngine, name: str, prompt: Prompt, sampling: Sampling, stream: bool
) -> tuple[list[Choice], int, int]:
    """The choices, the tokens of all of them, and the prompt's that were cached."""
    generation = await engine.generate(
        GenerationRequest(name, prompt, sampling, stream=stream, cache_salt=name.partition(":")[0])
    )
    choices = [Choice() for _ in range(sampling.n)]
    for delta in await read(generation):
        choice = choices[delta.index]
        assert choice.finish is None, "a delta came after the last one"
        choice.text += delta.text
        choice.tokens = delta.completion_tokens
        choice.finish, choice.stop = delta.finish_reason, delta.stop_reason
        choice.logprobs += [dict(zip(row.ids, row.logprobs, strict=True)) for row in delta.logprobs or ()]
        _add_calls(choice, delta)
    counts = generation.counts
    return choices, counts.completion, counts.cached


def _add_calls(choice: Choice, delta: Delta) -> None:
    for piece in delta.tool_calls:
        if piece.index == len(choice.calls):
            choice.calls.append((piece.name or "", ""))
        name, arguments = choice.calls[piece.index]
        choice.calls[piece.index] = (name, f"{arguments}{piece.arguments}")


async def theirs(
    engine: EmbeddedEngine, name: str, prompt: Prompt, sampling: Sampling
) -> tuple[list[Choice], int, int]:
    handle, core = rendered(prompt), engine._require().core
    assert isinstance(core, AsyncLLM)
    params = sampling_params(sampling, handle.constraints)
    params.output_kind = RequestOutputKind.FINAL_ONLY
    outputs = AsyncLLM.generate(
        core,
        {**handle.engine_input, "cache_salt": name.partition(":")[0]},
        params,
        name,
        reasoning_ended=handle.reasoning_ended,
        reasoning_parser_kwargs=handle.reasoning_parser_kwargs,
    )
    [final] = [output async for output in outputs]
    choices = []
    for output in sorted(final.outputs, key=lambda output: output.index):
        rows = [{token: max(one.logprob, -9999.0) for token, one in row.items()} for row in output.logprobs or ()]
        finish: FinishReason = "stop" if output.finish_reason == "stop" else "length"
        choices.append(Choice(output.text, len(output.token_ids), finish, output.stop_reason, rows))
        _parse(choices[-1], prompt, output.token_ids)
    return choices, sum(choice.tokens for choice in choices), final.num_cached_tokens or 0


def _parse(choice: Choice, prompt: Prompt, token_ids: Sequence[int]) -> None:
    """With vLLM's parser, the whole text at once, as its server does."""
    handle = rendered(prompt)
    if handle.context is None:
        return
    parser = handle.context.parser()
    parser.set_prompt_token_ids(handle.token_ids)
    _, content, calls = parser.parse(
        choice.text, handle.context.request, enable_auto_tools=True, model_output_token_ids=list(token_ids)
    )
    choice.text = content or ""
    choice.calls = [(call.name, call.arguments) for call in calls or ()]
    if calls and choice.finish == "stop" and not handle.context.names_tool:
        choice.finish = "tool_calls"


def read_arguments(choice: Choice) -> Choice:
    """What the arguments mean: spaces between them don't count."""
    choice.calls = [(name, json.loads(str(arguments))) for name, arguments in choice.calls]
    return choice


@pytest.mark.parametrize("seed", range(5))
async def test_any_request(engine: EmbeddedEngine, seed: int) -> None:
    rng = random.Random(seed)
    renderer = engine.renderer(ChatFormat())
    for number in range(CASES):
        words = rng.choice(SAID)
        match rng.randrange(3):
            case 0:
                prompt = await renderer.chat(Conversation([{"role": "user", "content": words}]))
            case 1:
                prompt = await renderer.text(words)
            case _:
                prompt = renderer.token_ids([*(rng.randrange(2000) for _ in range(rng.randrange(90))), WORD])
        sampling = Sampling(**drawn(rng))  # type: ignore[arg-type]  # the test's own values
        stream = rng.random() < 0.7
        found = await ours(engine, f"ours-{seed}:{number}", prompt, sampling, stream)
        assert found == await theirs(engine, f"theirs-{seed}:{number}", prompt, sampling), (number, sampling, stream)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_answer_in_a_format(engine: EmbeddedEngine, stream: bool) -> None:
    renderer = engine.renderer(LLAMA)
    for number, response_format in enumerate(FORMATS):
        message = {"role": "user", "content": SAID[number]}
        prompt = await renderer.chat(Conversation([message], response_format=response_format))
        for seed in (None, number):
            chosen = {"temperature": 0.0} if seed is None else {"temperature": 1.5, "seed": seed}
            sampling = Sampling(max_tokens=24, logprobs=2, **chosen)  # type: ignore[arg-type]  # as above
            name = f"format-{stream}:{number}-{seed}"
            found = await ours(engine, f"ours-{name}", prompt, sampling, stream)
            assert found == await theirs(engine, f"theirs-{name}", prompt, sampling), (number, seed)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("tool_choice", ["auto", "required", FORCED], ids=["auto", "required", "named"])
async def test_an_answer_with_calls(
    engine: EmbeddedEngine, tool_choice: str | Mapping[str, JSONValue], stream: bool
) -> None:
    renderer = engine.renderer(LLAMA)
    for number, words in enumerate(WEATHERS):
        message = {"role": "user", "content": words}
        prompt = await renderer.chat(Conversation([message], tools=[WEATHER], tool_choice=tool_choice))
        sampling = Sampling(max_tokens=80, temperature=0.0)
        name = f"calls-{stream}-{tool_choice}:{number}"
        found, tokens, cached = await ours(engine, f"ours-{name}", prompt, sampling, stream)
        expected, *counts = await theirs(engine, f"theirs-{name}", prompt, sampling)
        assert [tokens, cached] == counts
        assert [read_arguments(one) for one in found] == [read_arguments(one) for one in expected], words
        assert found[0].calls or tool_choice == "auto"

"""`echo` with `logprobs`: the log probabilities of the prompt's tokens, with the scripted engine.

Each of its words is a token with the log probability -0.5, and so is each alternative less its rank.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.script import RequestScript, Script, emit
from tests.gateway.conftest import GatewayServer, GatewayServers
from tests.gateway.test_completions import PRICE, post, refusal, stream

SCRIPT = Script((RequestScript((emit("fell"),), match="night"), RequestScript((emit("there was"),))))
PROMPTS_MAX_TOKENS = 12


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(script=SCRIPT, prompt_logprobs_max=PROMPTS_MAX_TOKENS) as running:
        yield running


async def test_the_lists_begin_with_the_prompt_whose_first_token_has_none(server: GatewayServer) -> None:
    document = await post(server, prompt="once upon a", echo=True, logprobs=1)
    (choice,) = document["choices"]
    assert choice["text"] == "once upon athere was"
    assert choice["logprobs"] == {
        "tokens": ["once", " upon", " a", "there", " was"],
        "token_logprobs": [None, *[-0.5] * 4],
        "top_logprobs": [None, *({token: -0.5} for token in (" upon", " a", "there", " was"))],
        "text_offset": [0, 4, 9, 11, 16],
    }
    assert document["usage"]["prompt_tokens"] == 3


async def test_without_alternatives_each_token_has_its_own_log_probability(server: GatewayServer) -> None:
    (choice,) = (await post(server, prompt="a night", echo=True, logprobs=0))["choices"]
    assert choice["logprobs"]["top_logprobs"] == [None, {" night": -0.5}, {"fell": -0.5}]


@pytest.mark.parametrize("max_tokens", [0, 1])
async def test_every_prompt_and_answer_has_its_own_lists(server: GatewayServer, max_tokens: int) -> None:
    asked = {"prompt": ["one two", "7 8 9", "night"], "n": 2, "max_tokens": max_tokens, "echo": True, "logprobs": 0}
    document = await post(server, **asked)
    prompts = [["one", " two"], ["7", " 8", " 9"], ["night"]]
    answers = [["there"], ["there"], ["fell"]]
    expected = [prompt + answer[:max_tokens] for prompt, answer in zip(prompts, answers, strict=True) for _ in range(2)]
    assert [choice["logprobs"]["tokens"] for choice in document["choices"]] == expected
    assert all(choice["logprobs"]["token_logprobs"][0] is None for choice in document["choices"])
    assert {choice["finish_reason"] for choice in document["choices"]} <= {"length", "stop"}
    # The token that the engine is asked for, as it can't be asked for none, is nobody's.
    (entry,) = await server.entries()
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (6, 6 * max_tokens)
    assert entry["cost"] == 6 * PRICE.input + 6 * max_tokens * PRICE.output


@pytest.mark.parametrize("max_tokens", [0, 5])
async def test_a_stream_holds_the_same(server: GatewayServer, max_tokens: int) -> None:
    asked: dict[str, Any] = {"prompt": ["one two", "a b c"], "max_tokens": max_tokens, "echo": True, "logprobs": 2}
    whole = (await post(server, **asked))["choices"]
    chunks = [chunk["choices"][0] for chunk in await stream(server, **asked)]
    for index, choice in enumerate(whole):
        own = [chunk for chunk in chunks if chunk["index"] == index]
        assert "".join(chunk["text"] for chunk in own) == choice["text"]
        for name, values in choice["logprobs"].items():
            assert [value for chunk in own if chunk["logprobs"] for value in chunk["logprobs"][name]] == values
        assert own[-1]["finish_reason"] == choice["finish_reason"]


async def test_a_long_prompt_comes_in_pieces_that_are_whole_together(gateway_server: GatewayServers) -> None:
    text = " ".join(f"w{number}" for number in range(1300))
    async with gateway_server(script=SCRIPT) as server:
        chunks = [chunk["choices"][0] for chunk in await stream(server, prompt=text, echo=True, logprobs=0)]
    assert [len(chunk["logprobs"]["tokens"]) for chunk in chunks[:3]] == [500, 500, 300]
    assert "".join(chunk["text"] for chunk in chunks[:3]) == text
    offsets = [offset for chunk in chunks[:3] for offset in chunk["logprobs"]["text_offset"]]
    tokens = [token for chunk in chunks[:3] for token in chunk["logprobs"]["tokens"]]
    assert all(text.startswith(token, offset) for token, offset in zip(tokens, offsets, strict=True))


async def test_more_than_the_setting_allows_is_refused_before_anything_runs(server: GatewayServer) -> None:
    longest = "w " * (PROMPTS_MAX_TOKENS - 1) + "w"
    assert (await post(server, prompt=longest, echo=True, logprobs=0))["usage"]["prompt_tokens"] == PROMPTS_MAX_TOKENS
    for asked in ({"prompt": f"{longest} w"}, {"prompt": "w w w", "n": 4, "max_tokens": 1}):
        status, error = await refusal(server, echo=True, logprobs=0, **{**asked, "prompt": f"{asked['prompt']} w"})
        assert (status, error["param"]) == (422, "echo")
        assert f"at most {PROMPTS_MAX_TOKENS} prompt tokens" in error["message"]
    assert len(await server.entries()) == 1

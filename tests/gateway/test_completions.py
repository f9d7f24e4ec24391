"""`POST .../completions`: forms of the prompt, formats of the answer, and what it costs, with the scripted engine."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.script import HANG, REJECT, RequestScript, Script, emit, fail, finish
from gateway.models.catalog import shipped_cards
from gateway.request.jobs import fit_to_context
from pricing.balance import Limit, LimitKind
from pricing.keys import KeyTerms
from pricing.money import parse_usd
from pricing.price import Price
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers, make_key

SCRIPT = Script(
    requests=(
        RequestScript((emit("fell"),), match="night"),
        RequestScript((emit("one"), HANG), match="please hang"),
        RequestScript((emit("x y z"), fail("broken")), match="please fail"),
        RequestScript((REJECT,), match="no room"),
        RequestScript((emit("there was a"), finish("stop")), cached=1),
    )
)

card = next(card for card in shipped_cards() if card.name == DEMO)
PRICE = Price.per_million(input=card.price.input, output=card.price.output)

COMPLETIONS = "/v1/completions"


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(script=SCRIPT, prompts_max=3) as running:
        yield running


async def post(server: GatewayServer, **body: object) -> dict[str, Any]:
    async with server.client() as http:
        answer = await http.post(COMPLETIONS, json={"model": DEMO, **body})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def refusal(server: GatewayServer, **body: object) -> tuple[int, dict[str, str]]:
    async with server.client() as http:
        answer = await http.post(COMPLETIONS, json={"model": DEMO, **body})
    assert answer.json()["detail"] == answer.json()["error"]["message"]
    return answer.status_code, answer.json()["error"]


async def stream(server: GatewayServer, **body: object) -> list[dict[str, Any]]:
    """The chunks, after a look at their framing."""
    async with server.client() as http:
        answer = await http.post(COMPLETIONS, json={"model": DEMO, "stream": True, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(event.startswith("data: {") for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/openai/completions"])
async def test_a_text_is_continued_and_charged(server: GatewayServer, path: str) -> None:
    async with server.client() as http:
        document = (await http.post(path, json={"model": DEMO, "prompt": "once upon a time"})).json()
    assert document["id"].startswith("cmpl-")
    assert document["object"] == "text_completion"
    assert document["model"] == DEMO
    assert document["choices"] == [{"index": 0, "text": "there was a", "logprobs": None, "finish_reason": "stop"}]
    cost = 3 * PRICE.input + PRICE.cached_input + 3 * PRICE.output
    assert document["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 3,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 0},
        "estimated_cost": cost / 10**12,
    }
    (entry,) = await server.entries()
    assert (entry["request_id"], entry["cost"]) == (document["id"], cost)


@pytest.mark.parametrize(
    ("prompt", "prompt_tokens", "echoed"),
    [
        ("a b", 2, ["a b"]),
        (["a b", "night"], 3, ["a b", "night"]),
        ([5, 6, 7], 3, ["5 6 7"]),
        ([[5, 6, 7], [8]], 4, ["5 6 7", "8"]),
    ],
    ids=["text", "texts", "token ids", "lists of token ids"],
)
async def test_every_form_of_the_prompt(
    server: GatewayServer, prompt: object, prompt_tokens: int, echoed: list[str]
) -> None:
    document = await post(server, prompt=prompt, echo=True, max_tokens=1)
    answers = ["fell" if text == "night" else "there" for text in echoed]
    assert [choice["text"] for choice in document["choices"]] == [
        text + answer for text, answer in zip(echoed, answers, strict=True)
    ]
    assert document["usage"]["prompt_tokens"] == prompt_tokens


async def test_several_prompts_are_numbered_prompt_by_prompt_and_are_one_entry_of_the_ledger(
    server: GatewayServer,
) -> None:
    document = await post(server, prompt=["a b", "night", "c"], n=2)
    choices = document["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3, 4, 5]
    assert [choice["text"] for choice in choices] == ["there was a"] * 2 + ["fell"] * 2 + ["there was a"] * 2
    usage = document["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4, 3 + 3 + 1 + 1 + 3 + 3)
    (entry,) = await server.entries()
    assert entry["cost"] == 2 * PRICE.input + 2 * PRICE.cached_input + 14 * PRICE.output
    assert entry["outcome"] == "finished"
    assert parse_usd(f"{usage['estimated_cost']:.12f}") == entry["cost"]


async def test_several_prompts_stream_with_one_usage_at_the_end(server: GatewayServer) -> None:
    chunks = await stream(server, prompt=["a", "night"], n=2, echo=True)
    texts = [""] * 4
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == ["athere was a"] * 2 + ["nightfell"] * 2
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks].count("stop") == 4
    assert ["usage" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["usage"]["completion_tokens"] == 8
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_include_usage_comes_as_openai_sends_it(server: GatewayServer) -> None:
    chunks = await stream(server, prompt="a b", stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 5
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_continuous_usage_counts_up(server: GatewayServer) -> None:
    chunks = await stream(
        server, prompt="a", stream_options={"continuous_usage_stats": True, "include_usage": False}, max_tokens=3
    )
    totals = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert totals == sorted(totals)
    assert totals[-1] == 3


@pytest.mark.parametrize("top", [0, 2])
async def test_logprobs_are_four_parallel_lists(server: GatewayServer, top: int) -> None:
    document = await post(server, prompt="a b", logprobs=top)
    logprobs = document["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["there", " was", " a"]
    assert logprobs["token_logprobs"] == [-0.5, -0.5, -0.5]
    assert logprobs["text_offset"] == [0, 5, 9]
    assert [len(row) for row in logprobs["top_logprobs"]] == [max(top, 1)] * 3
    assert logprobs["top_logprobs"][1][" was"] == -0.5


async def test_streamed_logprobs_are_those_of_the_whole_answer(server: GatewayServer) -> None:
    whole = (await post(server, prompt="a b", logprobs=1))["choices"][0]["logprobs"]
    pieces = [chunk["choices"][0]["logprobs"] for chunk in await stream(server, prompt="a b", logprobs=1)]
    for name, values in whole.items():
        assert [value for piece in pieces for value in piece[name]] == values


async def test_max_tokens_zero_echoes_and_generates_nothing(server: GatewayServer) -> None:
    document = await post(server, prompt=["a b", "night"], max_tokens=0, echo=True)
    assert [choice["text"] for choice in document["choices"]] == ["a b", "night"]
    assert [choice["finish_reason"] for choice in document["choices"]] == ["length", "length"]
    assert document["usage"]["completion_tokens"] == 0


async def test_absent_max_tokens_take_the_cards_default_within_the_context(server: GatewayServer) -> None:
    served = server.gateway.fleet.find(DEMO, 1)
    prompt = await served.renderer.text("a b c")
    assert fit_to_context(served, prompt, None, "prompt") == 16384
    served = server.gateway.fleet.find(LLAMA2, 1)
    assert fit_to_context(served, prompt, None, "prompt") == 4096 - 3


async def test_a_prompt_that_fills_the_context_is_refused_by_its_field(server: GatewayServer) -> None:
    status, error = await refusal(server, model=LLAMA2, prompt=["short", "word " * 4096])
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "prompt")


NO_PROMPTS: tuple[Any, ...] = (
    [],
    [[]],
    7,
    True,
    {"a": 1},
    ["a", 1],
    [1, "a"],
    [1.5],
    [True],
    [-1],
    [[1], "a"],
    [2**31],
)


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({"prompt": "a", "suffix": "b"}, 400, "suffix", "fill in the middle"),
        ({"prompt": "a", "best_of": 2}, 422, "best_of", "equal `n`"),
        ({"prompt": "a", "logprobs": 6}, 422, "logprobs", "5"),
        ({"prompt": "a", "logprobs": True}, 422, "logprobs", "true"),
        ({"prompt": "a", "logprobs": -1}, 422, "logprobs", "0"),
        ({"prompt": "a", "n": 5}, 422, "n", "1 ≤ n ≤ 4"),
        ({"prompt": "a", "temperature": 2.1}, 422, "temperature", "0 ≤ temperature ≤ 2"),
        ({"messages": []}, 422, "prompt", "is missing"),
        ({"prompt": ["a", "b", "c", "d"]}, 422, "prompt", "at most 3 prompts"),
        ({"prompt": [1], "response_format": {"type": "json_object"}}, 422, "prompt", "texts"),
        ({"prompt": ""}, 422, "prompt", "empty"),
        ({}, 422, "prompt", "missing"),
        *(({"prompt": prompt}, 422, "prompt", "a list of token ids") for prompt in NO_PROMPTS),
        ({"prompt": [2**30]}, 400, "prompt", "vocabulary"),
    ],
    ids=str,
)
async def test_refusals_name_the_field_and_charge_nothing(
    server: GatewayServer, fields: dict[str, object], status: int, param: str, words: str
) -> None:
    found, error = await refusal(server, **fields)
    assert (found, error["param"]) == (status, param)
    assert words in error["message"]
    assert await server.entries() == []


async def test_best_of_equal_to_n_is_accepted(server: GatewayServer) -> None:
    assert len((await post(server, prompt="a", n=2, best_of=2))["choices"]) == 2


async def test_one_refused_prompt_stops_the_others_and_charges_nothing(server: GatewayServer) -> None:
    status, error = await refusal(server, prompt=["please hang", "no room"])
    assert (status, error["code"]) == (503, "engine_overloaded")
    assert server.engines[0].running == set()
    assert [entry["state"] for entry in await server.entries()] in ([], ["void"])


async def test_one_failed_prompt_fails_the_request_and_charges_nothing(server: GatewayServer) -> None:
    status, error = await refusal(server, prompt=["please hang", "please fail"])
    assert (status, error["code"]) == (500, "engine_error")
    assert server.engines[0].running == set()
    (entry,) = await server.entries()
    assert (entry["state"], entry["reason"], entry["cost"]) == ("void", "engine_error", 0)


async def test_one_failed_prompt_ends_a_stream_and_charges_what_was_sent(server: GatewayServer) -> None:
    """The prompt "please hang" says one word, "please fail" says three."""
    async with server.client() as http:
        body = {"model": DEMO, "prompt": ["please hang", "please fail"], "stream": True}
        answer = await http.post(COMPLETIONS, json=body)
    assert "engine_error" in answer.text
    assert server.engines[0].running == set()
    (entry,) = await server.entries()
    assert (entry["outcome"], entry["completion_tokens"]) == ("engine_error", 1 + 3)


async def test_a_disconnect_stops_every_prompt_and_charges_what_was_generated(server: GatewayServer) -> None:
    body = {"model": DEMO, "prompt": ["please hang", "please hang too"], "stream": True}
    async with server.client() as http, http.stream("POST", COMPLETIONS, json=body) as answer:
        lines = answer.aiter_lines()
        seen = 0
        while seen < 2:
            seen += (await anext(lines)).startswith("data: ")
    await server.gateway.pipeline.drained(10)
    (entry,) = await server.entries()
    assert (entry["outcome"], entry["completion_tokens"]) == ("client_gone", 2)
    assert server.engines[0].running == set()


async def test_the_reservation_is_the_sum_of_all_prompts(server: GatewayServer) -> None:
    """Either of the prompts alone would fit into what the key has; together they don't."""
    terms = KeyTerms(limits=(Limit(LimitKind.TOTAL, parse_usd("0.001")),))  # 1,265 tokens of output
    secret = await make_key(server.database, "poor", terms)
    async with server.client(secret) as http:
        both = await http.post(COMPLETIONS, json={"model": DEMO, "prompt": ["a", "b"], "max_tokens": 700})
        one = await http.post(COMPLETIONS, json={"model": DEMO, "prompt": "a", "max_tokens": 700})
    assert (both.status_code, both.json()["error"]["code"]) == (402, "insufficient_funds")
    assert one.status_code == 200

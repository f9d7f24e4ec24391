"""Every accepted parameter changes what the real engine does."""

import json
import re
from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion

from tests.server import Server

DEMO = "farebox/demo"
JOKE = "Tell me a joke."
COUNT = "Count from 1 to 100."


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.openai()


def ask(client: OpenAI, prompt: str, **fields: object) -> ChatCompletion:
    # What OpenAI's SDK has no argument for goes into extra_body.
    own = {"top_k", "min_p", "repetition_penalty", "ignore_eos", "chat_template_kwargs"}
    extra = {name: value for name, value in fields.items() if name in own}
    known = {name: value for name, value in fields.items() if name not in own}
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model=DEMO, messages=messages, extra_body=extra, **known)  # type: ignore[call-overload,no-any-return]


def text(client: OpenAI, prompt: str, **fields: object) -> str:
    return ask(client, prompt, **fields).choices[0].message.content or ""


def test_seeds_repeat_and_differ(client: OpenAI) -> None:
    again = [text(client, JOKE, temperature=1, seed=7) for _ in range(3)]
    assert len(set(again)) == 1
    assert len({text(client, JOKE, temperature=1, seed=seed) for seed in range(12)}) > 1


def test_temperature_zero_is_greedy_and_one_is_not(client: OpenAI) -> None:
    assert len({text(client, JOKE, temperature=0) for _ in range(4)}) == 1
    assert len({text(client, JOKE, temperature=1) for _ in range(12)}) > 1


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}], ids=lambda value: next(iter(value)))
def test_a_sampler_narrowed_to_one_token_is_greedy(client: OpenAI, narrow: dict[str, float]) -> None:
    greedy = text(client, JOKE, temperature=0)
    assert {text(client, JOKE, temperature=1, **narrow) for _ in range(4)} == {greedy}


def test_n_gives_different_answers(client: OpenAI) -> None:
    choices = [choice for _ in range(3) for choice in ask(client, JOKE, n=4, temperature=1).choices]
    assert [choice.index for choice in choices[:4]] == [0, 1, 2, 3]
    assert len({choice.message.content for choice in choices}) > 1


@pytest.mark.parametrize("stream", [False, True])
def test_stop_stops_and_is_not_in_the_output(client: OpenAI, stream: bool) -> None:
    whole = text(client, COUNT, temperature=0)
    if stream:
        chunks = client.chat.completions.create(
            model=DEMO, messages=[{"role": "user", "content": COUNT}], temperature=0, stop=["7", "31"], stream=True
        )
        seen = list(chunks)
        cut = "".join(chunk.choices[0].delta.content or "" for chunk in seen)
        assert seen[-1].choices[0].finish_reason == "stop"
    else:
        cut = text(client, COUNT, temperature=0, stop=["7", "31"])
    assert "7" in whole
    assert cut == whole[: whole.index("7")]


@pytest.mark.parametrize(
    "penalty", [{"presence_penalty": 2}, {"frequency_penalty": 2}, {"repetition_penalty": 5.0}], ids=str
)
def test_penalties_reach_the_sampler(client: OpenAI, penalty: dict[str, float]) -> None:
    # Beyond the end of its answer the model is unsure of itself, and every little counts.
    fields = {"temperature": 0, "max_tokens": 300, "ignore_eos": True}
    assert text(client, "Hello!", **fields, **penalty) != text(client, "Hello!", **fields)


def test_logit_bias_moves_tokens(client: OpenAI) -> None:
    favoured = "2047"
    pushed = ask(client, "Hello!", temperature=0, max_tokens=4, logit_bias={favoured: 100}, logprobs=True)
    assert pushed.choices[0].logprobs is not None
    tokens = [token.token for token in pushed.choices[0].logprobs.content or []]
    assert len(tokens) == 4
    assert len(set(tokens)) == 1, "a bias of 100 beats everything"
    banned = text(client, "Hello!", temperature=0, max_tokens=4, logit_bias={str(n): -100 for n in range(1024)})
    assert banned != text(client, "Hello!", temperature=0, max_tokens=4)


def test_logprobs_come_for_every_token_with_their_alternatives(client: OpenAI) -> None:
    answer = ask(client, "Hello!", temperature=0, logprobs=True, top_logprobs=3)
    assert answer.usage is not None
    assert answer.choices[0].logprobs is not None
    tokens = answer.choices[0].logprobs.content or []
    assert "".join(token.token for token in tokens).startswith(answer.choices[0].message.content or "")
    assert abs(len(tokens) - answer.usage.completion_tokens) <= 1  # the token that ends the turn
    assert all(len(token.top_logprobs) == 3 for token in tokens)
    assert all(token.logprob <= 0 for token in tokens)


def test_ignore_eos_goes_on_to_the_limit(client: OpenAI) -> None:
    answer = ask(client, "Hello!", temperature=0, ignore_eos=True, max_tokens=300)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 300
    assert answer.choices[0].finish_reason == "length"


def test_max_completion_tokens_means_max_tokens(client: OpenAI) -> None:
    answer = ask(client, COUNT, max_completion_tokens=5)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5


def test_a_system_message_changes_the_answer(client: OpenAI) -> None:
    messages = [
        {"role": "system", "content": "Reply with JSON only."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    answer = client.chat.completions.create(model=DEMO, messages=messages, temperature=0)  # type: ignore[arg-type]
    assert json.loads(answer.choices[0].message.content or "") == {"country": "France", "capital": "Paris"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("response_format", "matches"),
    [
        ({"type": "json_object"}, lambda value: isinstance(json.loads(value), dict)),
        (
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "city",
                    "schema": {
                        "type": "object",
                        "properties": {"country": {"type": "string"}, "capital": {"enum": ["Rome", "Oslo"]}},
                        "required": ["country", "capital"],
                        "additionalProperties": False,
                    },
                },
            },
            lambda value: json.loads(value)["capital"] in ("Rome", "Oslo"),
        ),
        ({"type": "regex", "regex": "(yes|no), [a-f]{3}"}, lambda value: re.fullmatch("(yes|no), [a-f]{3}", value)),
    ],
    ids=["json_object", "json_schema", "regex"],
)
def test_structured_outputs_hold(
    server: Server, response_format: dict[str, object], matches: object, stream: bool
) -> None:
    body = {
        "model": DEMO,
        "messages": [{"role": "user", "content": "Answer in JSON: what is the capital of France?"}],
        "response_format": response_format,
        "temperature": 0,
        "max_tokens": 200,
        "stream": stream,
    }
    with server.client() as http:
        answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    if stream:
        chunks = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
        content = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    else:
        content = answer.json()["choices"][0]["message"]["content"]
    assert matches(content), content  # type: ignore[operator]


def test_text_parts_are_a_text(client: OpenAI) -> None:
    def answer(content: Any) -> tuple[object, int]:
        messages = [{"role": "user", "content": content}]
        made = client.chat.completions.create(model=DEMO, messages=messages, temperature=0)  # type: ignore[arg-type]
        assert made.usage is not None
        return made.choices[0].message.content, made.usage.prompt_tokens

    def parts(*texts: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text} for text in texts]

    assert answer(parts("Hel", "lo!")) == answer(parts("Hello!")) == answer("Hello!")
    assert answer(parts("Hel", "lo!")) != answer(parts("Hel"))


def test_the_prefix_cache_is_counted(client: OpenAI) -> None:
    prompt = "Tell me a long story. " * 40

    def cached(**fields: object) -> int:
        usage = ask(client, prompt, max_tokens=2, **fields).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        return usage.prompt_tokens_details.cached_tokens or 0

    cached()
    assert cached() > 100
    assert cached(prompt_cache_key="mine") > 100, "who shares prefixes is the card's to say"

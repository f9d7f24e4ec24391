"""`POST .../completions` through the OpenAI SDK, on the real engine."""

import openai
import pytest
from openai import OpenAI

from tests.server import Server

DEMO = "farebox/demo"
TEXT = "Hello! How are"


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.openai()


def test_greedy_completions_repeat_streaming_and_not(client: OpenAI) -> None:
    whole = client.completions.create(model=DEMO, prompt=TEXT, max_tokens=12, temperature=0)
    stream = client.completions.create(model=DEMO, prompt=TEXT, max_tokens=12, temperature=0, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 12


def test_several_prompts_answer_as_each_alone(client: OpenAI) -> None:
    # Not "The capital of": two answers are as likely there, and a batch may tip the scales.
    prompts = [TEXT, f"{TEXT} you", "Once upon"]
    alone = [
        client.completions.create(model=DEMO, prompt=prompt, max_tokens=8, temperature=0).choices[0].text
        for prompt in prompts
    ]
    together = client.completions.create(model=DEMO, prompt=prompts, max_tokens=8, temperature=0, n=2)
    assert [choice.index for choice in together.choices] == list(range(6))
    assert [choice.text for choice in together.choices] == [text for text in alone for _ in range(2)]
    assert together.usage is not None
    assert together.usage.completion_tokens == 6 * 8
    streamed = [""] * 6
    for chunk in client.completions.create(model=DEMO, prompt=prompts, max_tokens=8, temperature=0, n=2, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [choice.text for choice in together.choices]


def test_token_ids_mean_their_text_and_are_not_given_a_bos(client: OpenAI) -> None:
    ids = [5, 300, 301, 302]
    first = client.completions.create(model=DEMO, prompt=ids, max_tokens=4, temperature=0, echo=True)
    many = client.completions.create(model=DEMO, prompt=[ids, ids[:2]], max_tokens=4, temperature=0, echo=True)
    assert first.usage is not None
    assert first.usage.prompt_tokens == 4
    assert many.usage is not None
    assert many.usage.prompt_tokens == 6
    assert many.choices[0].text == first.choices[0].text
    with pytest.raises(openai.BadRequestError, match="vocabulary"):
        client.completions.create(model=DEMO, prompt=[10**8], max_tokens=1)


def test_echo_puts_the_prompt_in_front(client: OpenAI) -> None:
    plain = client.completions.create(model=DEMO, prompt=TEXT, max_tokens=5, temperature=0)
    echoed = client.completions.create(model=DEMO, prompt=TEXT, max_tokens=5, temperature=0, echo=True)
    assert echoed.choices[0].text == TEXT + plain.choices[0].text
    assert client.completions.create(model=DEMO, prompt=TEXT, max_tokens=0, echo=True).choices[0].text == TEXT


def test_logprobs_fit_the_text(client: OpenAI) -> None:
    answer = client.completions.create(model=DEMO, prompt=TEXT, max_tokens=10, temperature=0, logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    assert logprobs.text_offset is not None
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 10
    text = answer.choices[0].text
    for token, offset, logprob, top in zip(
        logprobs.tokens, logprobs.text_offset, logprobs.token_logprobs, logprobs.top_logprobs, strict=True
    ):
        assert text.startswith(token, offset)
        assert logprob <= 0
        assert top[token] == logprob == max(top.values())
        assert 3 <= len(top) <= 4


def test_stop_ends_before_the_sequence(client: OpenAI) -> None:
    whole = client.completions.create(model=DEMO, prompt=TEXT, max_tokens=20, temperature=0).choices[0].text
    stop = whole[6:9]
    answer = client.completions.create(model=DEMO, prompt=TEXT, max_tokens=20, temperature=0, stop=stop)
    assert answer.choices[0].text == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_response_format_makes_json(server: Server) -> None:
    body = {"model": DEMO, "prompt": "Give me", "response_format": {"type": "regex", "regex": "[0-9]{3}x"}}
    with server.client() as http:
        answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    text = answer.json()["choices"][0]["text"]
    assert text[:3].isdigit()
    assert text[3:] == "x"


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_a_prompts_log_probabilities_are_those_it_was_generated_with(client: OpenAI, max_tokens: int) -> None:
    """What evaluation tools compare answers by. Nothing of such a prompt comes from the prefix cache."""
    written = client.completions.create(model=DEMO, prompt=TEXT, max_tokens=12, temperature=0, logprobs=1).choices[0]
    assert written.logprobs is not None
    whole = TEXT + written.text
    for _ in range(2):
        answer = client.completions.create(model=DEMO, prompt=whole, max_tokens=max_tokens, echo=True, logprobs=1)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert (answer.usage.prompt_tokens_details.cached_tokens, answer.usage.completion_tokens) == (0, max_tokens)
    scored = answer.choices[0]
    assert scored.text.startswith(whole)
    logprobs = scored.logprobs
    assert logprobs is not None
    tokens, numbers, tops = logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs
    assert tokens is not None
    assert numbers is not None
    assert tops is not None
    assert numbers[0] is tops[0] is None
    assert len(tokens) == len(numbers) == len(tops) == answer.usage.prompt_tokens + max_tokens
    end = answer.usage.prompt_tokens
    assert tokens[end - 12 : end] == written.logprobs.tokens
    # The batch was another one: the last digits may differ.
    assert numbers[end - 12 : end] == pytest.approx(written.logprobs.token_logprobs, abs=0.05)
    assert [max(top.values()) for top in tops[end - 12 : end]] == numbers[end - 12 : end]


def test_token_ids_are_scored_as_they_are(client: OpenAI) -> None:
    answer = client.completions.create(model=DEMO, prompt=[[5, 300, 301], [5]], max_tokens=0, echo=True, logprobs=0)
    assert [len(choice.logprobs.tokens or ()) for choice in answer.choices if choice.logprobs] == [3, 1]
    assert answer.choices[1].logprobs is not None
    assert answer.choices[1].logprobs.token_logprobs == [None]

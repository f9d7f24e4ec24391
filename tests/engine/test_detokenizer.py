"""The plain detokenizer gives what vLLM's gives."""

import random

import pytest
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.tokenizers import TokenizerLike, get_tokenizer
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.detokenizer import IncrementalDetokenizer

from engine.demo import MODEL_DIR
from engine.vllm_internals.detokenizer import plain, read_prompts_end


@pytest.fixture(scope="module")
def tokenizer() -> TokenizerLike:
    return get_tokenizer(str(MODEL_DIR))


def theirs(tokenizer: TokenizerLike, prompt: list[int], **options: object) -> IncrementalDetokenizer:
    params = SamplingParams(max_tokens=1000, output_kind=RequestOutputKind.DELTA, **options)
    request = EngineCoreRequest("r", prompt, None, params, None, 0.0, None, None, None)
    return IncrementalDetokenizer.from_new_request(tokenizer, request)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("prompt_tokens", [5, 500])
def test_any_tokens_in_any_steps(tokenizer: TokenizerLike, seed: int, skip: bool, prompt_tokens: int) -> None:
    rng = random.Random(seed)
    prompt = [rng.randrange(len(tokenizer)) for _ in range(prompt_tokens)]
    # Bytes of characters that are split over tokens, special tokens, words: whatever the vocabulary has.
    tokens = [rng.randrange(len(tokenizer)) for _ in range(400)]
    slow, ours = (theirs(tokenizer, prompt, skip_special_tokens=skip) for _ in range(2))
    read_prompts_end(ours, prompt)
    fast = plain(ours)
    assert fast is not None
    while tokens:
        size = rng.choice((1, 1, 1, 4))
        step, tokens = tokens[:size], tokens[size:]
        stopped = not tokens
        slow.update(step, stopped)
        assert fast.advance(step, stopped) == slow.get_next_output_text(stopped, delta=True)
    assert fast.output_token_ids == slow.output_token_ids
    assert fast.num_output_tokens() == 400


def test_text_outside_of_ascii_comes_whole(tokenizer: TokenizerLike) -> None:
    text = "Grüße, 世界! 🎟️"
    fast = plain(theirs(tokenizer, []))
    assert fast is not None
    assert "".join(fast.advance([token], False) for token in tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("before", ["", "Hi ", "a long prompt " * 40])
def test_the_prompt_isnt_given_again_where_it_ends_within_a_character(tokenizer: TokenizerLike, before: str) -> None:
    """As vLLM's does."""
    *first, last = tokenizer.encode(f"{before}世", add_special_tokens=False)
    assert tokenizer.decode([last]).endswith("\N{REPLACEMENT CHARACTER}"), "a character of several tokens is needed"
    vllms = theirs(tokenizer, first)
    read_prompts_end(vllms, first)
    fast = plain(vllms)
    assert fast is not None
    assert fast.advance([last], False) == "世"


def test_stop_strings_and_special_spacing_are_left_to_vllm(tokenizer: TokenizerLike) -> None:
    assert plain(theirs(tokenizer, [], stop=["x"])) is None
    assert plain(theirs(tokenizer, [], skip_special_tokens=False, spaces_between_special_tokens=False)) is None
    assert plain(IncrementalDetokenizer()) is None

"""Sampling in vLLM's terms."""

from dataclasses import fields

import pytest
from vllm.sampling_params import SamplingParams

from engine.base import Sampling
from engine.sampling import Constraints, engine_seed, sampling_params
from gateway.models.parameters import shipped_profiles


def test_every_field_reaches_the_engine() -> None:
    params = sampling_params(
        Sampling(
            max_tokens=9,
            n=2,
            temperature=0.3,
            top_p=0.4,
            top_k=5,
            min_p=0.6,
            presence_penalty=0.7,
            frequency_penalty=0.8,
            repetition_penalty=0.9,
            seed=10,
            stop=("a", "b"),
            ignore_eos=True,
            logprobs=3,
            logit_bias={4: 5.0},
        ),
        Constraints(skip_special_tokens=False, stop_token_ids=(1,)),
    )
    assert (params.max_tokens, params.n, params.temperature, params.top_p, params.top_k) == (9, 2, 0.3, 0.4, 5)
    assert (params.min_p, params.presence_penalty, params.frequency_penalty) == (0.6, 0.7, 0.8)
    assert (params.repetition_penalty, params.seed, params.stop, params.ignore_eos) == (0.9, 10, ["a", "b"], True)
    assert (params.logprobs, params.logit_bias) == (3, {4: 5.0})
    assert (params.skip_special_tokens, params.stop_token_ids) == (False, [1])


def test_bias_is_kept_within_a_hundred() -> None:
    assert sampling_params(Sampling(1, logit_bias={1: 500.0, 2: -500.0})).logit_bias == {1: 100.0, 2: -100.0}


@pytest.mark.parametrize("seed", [0, 1, 2**62, 2**63 - 2**16 - 1, None])
def test_usual_seeds_are_taken_as_they_are(seed: int | None) -> None:
    assert engine_seed(seed) == seed


@pytest.mark.parametrize("seed", [-1, -2, -(2**63), 2**63 - 1, 2**63, 2**64 - 1])
def test_other_seeds_are_mapped_into_the_engines_range(seed: int) -> None:
    mapped = engine_seed(seed)
    assert mapped is not None
    assert 0 <= mapped < 2**62
    assert engine_seed(seed) == mapped


def test_mapped_seeds_differ() -> None:
    seeds = [*range(-100, 0), *range(2**64 - 100, 2**64)]
    assert len({engine_seed(seed) for seed in seeds}) == len(seeds)


def test_greedy_choices_sample_the_likeliest_token() -> None:
    params = sampling_params(Sampling(1, n=2, temperature=0.0, top_k=40))
    assert (params.temperature, params.top_k) == (1.0, 1)


def test_every_row_of_every_profile_is_something_the_engine_has() -> None:
    known = {one.name for one in fields(Sampling)} | set(SamplingParams.__struct_fields__)
    for profile in shipped_profiles().values():
        for section in profile.sections.values():
            assert {row.engine or name for name, row in section.items() if row.engine != ""} <= known


def test_what_only_the_engine_knows_reaches_it() -> None:
    more = {"min_tokens": 2, "stop_token_ids": [7], "bad_words": ["no"], "skip_special_tokens": False}
    params = sampling_params(Sampling.of(9, {"top_k": 3, **more}), Constraints(stop_token_ids=(1,)))
    assert (params.top_k, params.min_tokens, params.stop_token_ids, params.bad_words) == (3, 2, [1, 7], ["no"])
    assert params.skip_special_tokens is False

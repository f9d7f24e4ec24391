"""`Sampling` in vLLM's terms: every field, and the few places where vLLM's ranges are narrower than a model page's."""

import hashlib
from dataclasses import dataclass

from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from engine.base import Sampling
from engine.temperature import split

# vLLM's own least temperature (`sampling_params._MAX_TEMP`): it would raise a smaller one to this and log a warning
# for each request.
_TEMPERATURE_MIN = 0.01
_GREEDY = 1e-5

# A bias outside this range is pulled into it, as vLLM's and OpenAI's servers do.
_BIAS_MAX = 100.0

# A choice's seed is the request's plus its index, and must still be a signed 64-bit integer.
_SEED_END = 2**63 - 2**16


@dataclass(frozen=True, slots=True)
class Constraints:
    """What the chat format asks of the sampler: a grammar, how special tokens show in the text, an end of thinking."""

    structured_outputs: StructuredOutputsParams | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    stop_token_ids: tuple[int, ...] = ()
    thinking_tokens_max: int | None = None


UNCONSTRAINED = Constraints()

# What vLLM takes under the same name and in the same range.
_AS_THEY_ARE = (
    "n",
    "max_tokens",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "ignore_eos",
    "logprobs",
    "prompt_logprobs",
)


def sampling_params(sampling: Sampling, constraints: Constraints = UNCONSTRAINED) -> SamplingParams:
    """Raises VLLMValidationError when vLLM won't take a value."""
    temperature, top_k = sampling.temperature, sampling.top_k
    if temperature < _GREEDY:
        temperature = 0.0
        if sampling.n > 1:
            # vLLM refuses greedy sampling of several choices; the likeliest token alone is the same thing.
            temperature, top_k = 1.0, 1
    elif temperature < _TEMPERATURE_MIN:
        temperature = _TEMPERATURE_MIN
    temperature, min_p, extra = split(temperature, sampling.min_p)
    bias = {token: max(-_BIAS_MAX, min(_BIAS_MAX, value)) for token, value in sampling.logit_bias.items()}
    return SamplingParams(
        **{
            **{name: getattr(sampling, name) for name in _AS_THEY_ARE},
            **sampling.more,
            "temperature": temperature,
            "top_k": top_k,
            "min_p": min_p,
            "seed": engine_seed(sampling.seed),
            "stop": list(sampling.stop),
            "logit_bias": bias or None,
            "skip_special_tokens": constraints.skip_special_tokens and sampling.more.get("skip_special_tokens", True),
            "stop_token_ids": [*constraints.stop_token_ids, *sampling.more.get("stop_token_ids", ())],
        },
        extra_args=extra,
        output_kind=RequestOutputKind.DELTA,
        structured_outputs=constraints.structured_outputs,
        spaces_between_special_tokens=constraints.spaces_between_special_tokens,
        include_stop_str_in_output=constraints.include_stop_str_in_output,
        thinking_token_budget=constraints.thinking_tokens_max,
        skip_clone=True,
    )


def engine_seed(seed: int | None) -> int | None:
    """A seed that vLLM takes and repeats, the same for the same `seed` always.

    A model page may allow -2**63 <= seed < 2**64. vLLM's server takes signed 64-bit seeds, reads -1 as "none" and
    adds the choice's index, so that seeds near the ends, or -2, would fail or stop repeating. Whatever is outside
    0 <= seed < 2**63 - 2**16 is replaced by 62 bits of its hash.
    """
    if seed is None or 0 <= seed < _SEED_END:
        return seed
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2

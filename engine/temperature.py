"""Temperatures above 2: a model page allows up to 100, and vLLM takes at most 2 (`SamplingParams._verify_args`).

vLLM divides the logits by 2, and a logits processor divides them by the rest. vLLM applies min_p between the two, so a
min_p is handed over that lets the same tokens through: those with (logit - highest) / temperature >= log(min_p).
With speculative decoding vLLM takes no logits processors (nor min_p): temperatures above 2 are refused there.
"""

from collections.abc import Mapping

import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor, RequestLogitsProcessor

VLLM_TEMPERATURE_MAX = 2.0
NAME = "engine.temperature:HighTemperature"

_KEY = "farebox_temperature_rest"


def split(temperature: float, min_p: float) -> tuple[float, float, dict[str, float] | None]:
    """vLLM's temperature and min_p, and its `extra_args` for the rest."""
    if temperature <= VLLM_TEMPERATURE_MAX:
        return temperature, min_p, None
    rest = temperature / VLLM_TEMPERATURE_MAX
    return VLLM_TEMPERATURE_MAX, min_p**rest, {_KEY: rest}


class HighTemperature(AdapterLogitsProcessor):
    """Divides the logits of the requests that ask for it; costs nothing for the others."""

    def is_argmax_invariant(self) -> bool:
        return True

    def new_req_logits_processor(self, params: SamplingParams) -> RequestLogitsProcessor | None:
        extra: Mapping[str, object] = params.extra_args or {}
        rest = extra.get(_KEY)
        if not isinstance(rest, int | float):
            return None

        def divide(output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
            return logits / rest

        return divide

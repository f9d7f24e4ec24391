"""A temperature in two steps lets the same tokens through, with the same probabilities, as in one."""

import pytest
import torch
from vllm.sampling_params import SamplingParams

from engine.base import Sampling
from engine.sampling import sampling_params
from engine.temperature import HighTemperature


def probabilities(logits: torch.Tensor, temperature: float, min_p: float) -> torch.Tensor:
    found = torch.softmax(logits / temperature, -1)
    return torch.where(found >= min_p * found.max(), found, 0.0)


@pytest.mark.parametrize("min_p", [0.0, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 2.0, 2.5, 100.0])
def test_two_steps_are_one(temperature: float, min_p: float) -> None:
    logits = torch.linspace(-8, 8, 101, dtype=torch.float64)
    params = sampling_params(Sampling(max_tokens=1, temperature=temperature, min_p=min_p))
    kept = probabilities(logits, params.temperature, params.min_p) > 0
    scaled = logits / params.temperature
    divide = HighTemperature.new_req_logits_processor(None, params)  # type: ignore[arg-type]  # it uses no state
    if divide is not None:
        scaled = divide([], scaled)
    whole = probabilities(logits, temperature, min_p)
    assert torch.equal(kept, whole > 0)
    assert torch.allclose(torch.softmax(scaled, -1), torch.softmax(logits / temperature, -1))


def test_other_requests_are_left_alone() -> None:
    assert HighTemperature.new_req_logits_processor(None, SamplingParams(temperature=2.0)) is None  # type: ignore[arg-type]

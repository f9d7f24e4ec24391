"""How many tokens a model may think: kept where the engine knows how its thinking ends, and else named."""

import pytest

from engine.base import THINKING_BUDGET, ChatFormat, Conversation, Sampling
from engine.embedded import EmbeddedEngine
from engine.rendering import rendered
from engine.sampling import Constraints, sampling_params

BUDGETED = Conversation([{"role": "user", "content": "Hello!"}], thinking_tokens_max=7)


def test_a_budget_reaches_vllm() -> None:
    assert sampling_params(Sampling(9), Constraints(thinking_tokens_max=7)).thinking_token_budget == 7
    assert sampling_params(Sampling(9)).thinking_token_budget is None


@pytest.mark.parametrize("parser", [None, "granite"])
async def test_an_engine_that_cant_end_thinking_says_so(engine: EmbeddedEngine, parser: str | None) -> None:
    """vLLM would refuse the request: it needs a parser of the engine's own, beside the card's."""
    prompt = await engine.renderer(ChatFormat(reasoning_parser=parser)).chat(BUDGETED)
    assert prompt.left_out == (THINKING_BUDGET,)
    assert rendered(prompt).constraints.thinking_tokens_max is None

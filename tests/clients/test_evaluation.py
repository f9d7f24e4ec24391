"""`lm_eval` and `guidellm` by their own command lines, on the real engine."""

import pytest

from tests.clients.conftest import Clients, Stage
from tests.clients.report import Report


@pytest.fixture(scope="module")
def tools(evaluation: Clients, real: Stage) -> Report:
    return evaluation.run("evaluation_client.py", real)


@pytest.mark.parametrize("case", ["token_ids", "texts_in_batches"])
def test_lm_eval_compares_answers_by_their_log_likelihoods(tools: Report, case: str) -> None:
    assert tools.answer(case)["acc,none"] == 1


def test_lm_eval_judges_answers_of_the_chat_route(tools: Report) -> None:
    assert tools.answer("chat")["exact_match,none"] == 1


@pytest.mark.parametrize("case", ["load_chat", "load_completions", "load_responses"])
def test_guidellm_loads_every_route(tools: Report, case: str) -> None:
    assert tools.answer(case) == {
        "requests": {"successful": 3, "errored": 0, "incomplete": 0, "total": 3},
        "tokens": 8,
    }

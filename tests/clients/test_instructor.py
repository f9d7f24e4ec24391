"""`instructor`: structured output, by a named function and by a response format."""

import pytest

from tests.clients import scene
from tests.clients.conftest import Clients, Stage
from tests.clients.report import Report


@pytest.fixture(scope="module")
def instructor(python: Clients, scripted: Stage) -> Report:
    return python.run("instructor_client.py", scripted)


@pytest.mark.parametrize("mode", ["tools", "json_object", "json_schema"])
def test_object(instructor: Report, mode: str) -> None:
    answer = instructor.answer(mode)
    assert answer["person"] == scene.PERSON
    scene.assert_paid(answer["usage"])


def test_streamed_object_grows(instructor: Report) -> None:
    people = instructor.answer("partial")
    assert len(people) > 1
    assert people[0] != scene.PERSON
    assert people[-1] == scene.PERSON


@pytest.mark.parametrize(
    ("case", "status", "words"),
    [
        ("wrong_key", 401, "not valid"),
        ("bad_parameter", 422, "0 < top_p ≤ 1; got 7"),
        ("no_money", 402, "A lower max_tokens may fit"),
        ("no_model", 404, "Did you mean"),
    ],
)
def test_errors(instructor: Report, case: str, status: int, words: str) -> None:
    """It wraps OpenAI's error, and keeps its words."""
    raised = instructor.raised(case)
    assert raised.name == "InstructorRetryException"
    assert f"Error code: {status}" in raised.message
    assert words in raised.message

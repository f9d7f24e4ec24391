"""`litellm` with its DeepInfra provider, told of the gateway by DEEPINFRA_API_BASE."""

import json

import pytest

from tests.clients import scene
from tests.clients.conftest import Clients, Stage
from tests.clients.report import Report


@pytest.fixture(scope="module")
def litellm(python: Clients, scripted: Stage) -> Report:
    return python.run("litellm_client.py", scripted)


def test_chat(litellm: Report) -> None:
    answer = litellm.answer("chat")
    assert answer["text"] == scene.ANSWER
    scene.assert_paid(answer["usage"])


def test_streaming_chat(litellm: Report) -> None:
    answer = litellm.answer("stream")
    assert len(answer["pieces"]) > 1
    assert "".join(answer["pieces"]) == scene.ANSWER
    assert answer["finish_reason"] == "stop"


def test_streams_usage(litellm: Report) -> None:
    """It keeps the tokens of a stream, and drops fields that it doesn't know, such as the cost."""
    usage = litellm.answer("stream_with_usage")
    assert min(usage["prompt_tokens"], usage["completion_tokens"]) > 0


def test_conversation(litellm: Report) -> None:
    """Its message comes back with a field of its own."""
    assert litellm.answer("conversation") == scene.YOU


def test_tool_call(litellm: Report) -> None:
    answer = litellm.answer("tool")
    assert (answer["name"], json.loads(answer["arguments"])) == ("get_weather", {"city": "Paris"})
    assert answer["finish_reason"] == "tool_calls"
    assert answer["text"] == scene.WEATHER_ANSWER


@pytest.mark.parametrize(
    ("case", "name", "status", "words"),
    [
        ("wrong_key", "AuthenticationError", 401, "not valid"),
        ("bad_parameter", "BadRequestError", 422, "0 < top_p ≤ 1; got 7"),
        ("no_money", "APIError", 402, "A lower max_tokens may fit"),
        ("no_model", "NotFoundError", 404, "Did you mean"),
    ],
)
def test_errors(litellm: Report, case: str, name: str, status: int, words: str) -> None:
    raised = litellm.raised(case)
    assert (raised.name, raised.status) == (name, status)
    assert words in raised.message

"""`llama-index-llms-deepinfra`. It reads the last choice of every chunk, so that none may come without."""

import pytest

from tests.clients import scene
from tests.clients.conftest import Clients, Stage
from tests.clients.report import Report


@pytest.fixture(scope="module")
def llama_index(python: Clients, scripted: Stage) -> Report:
    return python.run("llama_index_client.py", scripted)


def test_chat(llama_index: Report) -> None:
    answer = llama_index.answer("chat")
    assert answer["text"] == scene.ANSWER
    scene.assert_paid(answer["usage"])


def test_streaming_chat(llama_index: Report) -> None:
    answer = llama_index.answer("stream")
    assert len(answer["pieces"]) > 1
    assert "".join(answer["pieces"]) == scene.ANSWER
    assert llama_index.answer("async_stream") == answer["pieces"]


def test_completion(llama_index: Report) -> None:
    assert llama_index.answer("complete") == scene.NATIVE_TEXT


def test_conversation(llama_index: Report) -> None:
    """It sends `tool_calls: []` with every answer that had none."""
    assert llama_index.answer("conversation") == scene.YOU


def test_it_learns_from_the_catalog_which_model_has_tools(llama_index: Report) -> None:
    """From `tags` of GET /models/{name}; a model that isn't there is a 404, which it takes for no."""
    assert llama_index.answer("knows_tools") == [True, False]


def test_tool_call(llama_index: Report) -> None:
    answer = llama_index.answer("tool")
    assert (answer["name"], answer["arguments"]) == ("get_weather", {"city": "Paris"})
    assert answer["text"] == scene.WEATHER_ANSWER


@pytest.mark.parametrize(
    ("case", "status", "words"),
    [
        ("wrong_key", 401, "not valid"),
        ("bad_parameter", 422, "0 < top_p ≤ 1; got 7"),
        ("no_money", 402, "A lower max_tokens may fit"),
        ("no_model", 404, "Did you mean"),
    ],
)
def test_errors(llama_index: Report, case: str, status: int, words: str) -> None:
    """They are those of `requests`, and hold the answer."""
    answer = llama_index.answer(case)
    assert answer["class"] == "HTTPError"
    assert answer["status"] == status
    assert words in answer["body"]["error"]["message"]

"""LangChain: `langchain-openai`'s ChatOpenAI, and `langchain-community`'s ChatDeepInfra."""

from typing import Any

import pytest

from tests.clients import scene
from tests.clients.conftest import Clients, Stage
from tests.clients.report import Report

ERRORS = [
    ("wrong_key", 401, "not valid"),
    ("bad_parameter", 422, "0 < top_p ≤ 1; got 7"),
    ("no_money", 402, "A lower max_tokens may fit"),
    ("no_model", 404, "Did you mean"),
]


@pytest.fixture(scope="module")
def chat_openai(python: Clients, scripted: Stage) -> Report:
    return python.run("langchain_openai_client.py", scripted)


@pytest.fixture(scope="module")
def chat_deepinfra(python: Clients, scripted: Stage) -> Report:
    return python.run("chat_deepinfra_client.py", scripted)


class TestChatOpenAI:
    def test_chat(self, chat_openai: Report) -> None:
        answer = chat_openai.answer("chat")
        assert answer["text"] == scene.ANSWER
        scene.assert_paid(answer["usage"])
        assert_counted(answer["counted"])

    def test_streaming_chat(self, chat_openai: Report) -> None:
        answer = chat_openai.answer("stream")
        assert len(answer["pieces"]) > 1
        assert "".join(answer["pieces"]) == scene.ANSWER
        assert_counted(answer["counted"])

    def test_conversation(self, chat_openai: Report) -> None:
        assert chat_openai.answer("conversation") == scene.YOU

    def test_tool_call(self, chat_openai: Report) -> None:
        assert_weather(chat_openai.answer("tool"))

    def test_structured_output(self, chat_openai: Report) -> None:
        assert chat_openai.answer("structured") == scene.PERSON

    @pytest.mark.parametrize(("case", "status", "words"), ERRORS)
    def test_errors(self, chat_openai: Report, case: str, status: int, words: str) -> None:
        """LangChain's own classes derive from OpenAI's."""
        raised = chat_openai.raised(case)
        kinds = {
            401: "AuthenticationError",
            402: "APIStatusError",
            404: "NotFoundError",
            422: "UnprocessableEntityError",
        }
        assert raised.status == status
        assert kinds[status] in raised.classes
        assert words in raised.message


class TestChatDeepInfra:
    def test_chat(self, chat_deepinfra: Report) -> None:
        """It writes `bearer` in lower case."""
        answer = chat_deepinfra.answer("chat")
        assert answer["text"] == scene.ANSWER
        scene.assert_paid(answer["usage"])

    def test_streaming_chat(self, chat_deepinfra: Report) -> None:
        """Its chunks have no room for usage."""
        pieces = chat_deepinfra.answer("stream")
        assert len(pieces) > 1
        assert "".join(pieces) == scene.ANSWER

    def test_conversation(self, chat_deepinfra: Report) -> None:
        """It sends `tool_calls: []` with every answer that had none."""
        assert chat_deepinfra.answer("conversation") == scene.YOU

    def test_tool_call(self, chat_deepinfra: Report) -> None:
        assert_weather(chat_deepinfra.answer("tool"))

    @pytest.mark.parametrize(("case", "status", "words"), ERRORS)
    def test_errors(self, chat_deepinfra: Report, case: str, status: int, words: str) -> None:
        """Every refusal is a ValueError here, with our body as its text."""
        raised = chat_deepinfra.raised(case)
        codes = {401: "invalid_api_key", 402: "insufficient_funds", 404: "model_not_found", 422: "invalid_parameter"}
        assert raised.name == "ValueError"
        assert f'"code":"{codes[status]}"' in raised.message
        assert words in raised.message

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_word_error_is_in_no_successful_body(self, scripted: Stage, stream: bool) -> None:
        """Some versions of it fail on the word, wherever it stands."""
        messages = [{"role": "user", "content": scene.QUESTION}]
        with scripted.server.client() as http:
            answer = http.post(
                "/v1/openai/chat/completions", json={"model": scene.MODEL, "messages": messages, "stream": stream}
            )
        assert answer.status_code == 200
        assert "error" not in answer.text


def assert_counted(usage: dict[str, Any]) -> None:
    assert min(usage["input_tokens"], usage["output_tokens"]) > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def assert_weather(answer: dict[str, Any]) -> None:
    assert (answer["name"], answer["arguments"]) == ("get_weather", {"city": "Paris"})
    assert answer["text"] == scene.WEATHER_ANSWER

"""The clients from npm: `openai`, `@ai-sdk/deepinfra` with `ai`, and `deepinfra` on the native route."""

import json
from typing import Any

import pytest

from tests.clients import scene
from tests.clients.conftest import Clients, Stage
from tests.clients.report import Report

ON_BOTH = ("chat", "stream", "streamWithUsage", "conversation", "tool", "streamedTool")
ERRORS = [
    ("wrongKey", 401, "not valid"),
    ("badParameter", 422, "0 < top_p ≤ 1; got 7"),
    ("noMoney", 402, "A lower max_tokens may fit"),
    ("noModel", 404, "Did you mean"),
]


@pytest.fixture(scope="module")
def openai_both(node: Clients, stage: Stage) -> Report:
    return node.run("openai.mjs", stage, ON_BOTH)


@pytest.fixture(scope="module")
def openai(node: Clients, scripted: Stage) -> Report:
    return node.run("openai.mjs", scripted)


@pytest.fixture(scope="module")
def ai_sdk(node: Clients, scripted: Stage) -> Report:
    return node.run("ai-sdk.mjs", scripted)


@pytest.fixture(scope="module")
def deepinfra(node: Clients, scripted: Stage) -> Report:
    return node.run("deepinfra.mjs", scripted)


class TestOpenAI:
    def test_chat(self, openai_both: Report) -> None:
        answer = openai_both.answer("chat")
        assert answer["text"] == scene.ANSWER
        assert answer["requestId"]
        scene.assert_paid(answer["usage"])

    @pytest.mark.parametrize(("case", "last_choices"), [("stream", 1), ("streamWithUsage", 0)])
    def test_streaming_chat(self, openai_both: Report, case: str, last_choices: int) -> None:
        answer = openai_both.answer(case)
        assert len(answer["pieces"]) > 1
        assert "".join(answer["pieces"]) == scene.ANSWER
        [usage] = answer["usages"]
        scene.assert_paid(usage)
        assert answer["lastChoices"] == last_choices

    def test_conversation(self, openai_both: Report) -> None:
        assert openai_both.answer("conversation") == scene.YOU

    def test_batch(self, openai: Report) -> None:
        answer = openai.answer("batch")
        assert answer["status"] == "completed"
        assert answer["counts"] == {"total": 3, "completed": 3, "failed": 0}
        assert answer["ids"] == ["request-1", "request-2", "request-3"]
        assert answer["texts"] == [scene.ANSWER] * 3

    def test_tool_call(self, openai_both: Report) -> None:
        answer = openai_both.answer("tool")
        assert_weather_call(answer)
        assert answer["text"] == scene.WEATHER_ANSWER

    def test_streamed_tool_call(self, openai_both: Report) -> None:
        assert_weather_call(openai_both.answer("streamedTool"))

    def test_helpers(self, openai: Report) -> None:
        assert openai.answer("streamHelper") == scene.ANSWER
        assert openai.answer("toolRunner") == scene.WEATHER_ANSWER
        assert openai.answer("structured") == scene.PERSON
        assert openai.answer("models") == [[scene.MODEL], scene.MODEL]

    @pytest.mark.parametrize(("case", "status", "words"), ERRORS)
    def test_errors(self, openai: Report, case: str, status: int, words: str) -> None:
        raised = openai.raised(case)
        names = {401: "AuthenticationError", 402: "APIError", 404: "NotFoundError", 422: "UnprocessableEntityError"}
        assert (raised.name, raised.status) == (names[status], status)
        assert words in raised.message

    def test_a_failure_within_a_stream_is_raised(self, openai: Report) -> None:
        raised = openai.raised("brokenStream")
        assert raised.name == "APIError"
        assert "The engine failed" in raised.message


class TestAISDK:
    def test_chat(self, ai_sdk: Report) -> None:
        answer = ai_sdk.answer("chat")
        assert answer["text"] == scene.ANSWER
        assert_counted(answer["counted"])
        scene.assert_paid(answer["usage"])

    def test_streaming_chat(self, ai_sdk: Report) -> None:
        """It never asks for the usage of a stream, and shows it: tokens, and the cost among the raw fields."""
        answer = ai_sdk.answer("stream")
        assert len(answer["pieces"]) > 1
        assert "".join(answer["pieces"]) == scene.ANSWER
        assert answer["finishReason"] == "stop"
        assert_counted(answer["counted"])
        scene.assert_paid(answer["counted"]["raw"])

    def test_conversation(self, ai_sdk: Report) -> None:
        assert ai_sdk.answer("conversation") == scene.YOU

    @pytest.mark.parametrize("case", ["tool", "streamedTool"])
    def test_tool_call(self, ai_sdk: Report, case: str) -> None:
        """The SDK runs the function and asks again by itself."""
        answer = ai_sdk.answer(case)
        assert answer["calls"] == [["get_weather", {"city": "Paris"}]]
        assert answer["text"] == scene.WEATHER_ANSWER

    def test_structured_output(self, ai_sdk: Report) -> None:
        assert ai_sdk.answer("structured") == scene.PERSON

    @pytest.mark.parametrize(("case", "status", "words"), ERRORS)
    def test_errors(self, ai_sdk: Report, case: str, status: int, words: str) -> None:
        raised = ai_sdk.raised(case)
        assert (raised.name, raised.status) == ("APICallError", status)
        assert words in raised.message


class TestDeepInfra:
    """The native route: text in, text out. It knows no conversation and no tools."""

    def test_text(self, deepinfra: Report) -> None:
        answer = deepinfra.answer("text")
        status = answer["inference_status"]
        assert [result["generated_text"] for result in answer["results"]] == [scene.NATIVE_TEXT]
        assert status["status"] == "succeeded"
        assert (status["tokens_input"], status["tokens_generated"]) == (
            answer["num_input_tokens"],
            answer["num_tokens"],
        )
        scene.assert_paid(
            {
                "prompt_tokens": status["tokens_input"],
                "completion_tokens": status["tokens_generated"],
                "estimated_cost": status["cost"],
            }
        )

    def test_stream_comes_as_events(self, deepinfra: Report) -> None:
        """The package hands over the raw body of a stream."""
        *events, rest = deepinfra.answer("stream").split("\n\n")
        assert rest == ""
        assert ": ping" in events
        parsed = [json.loads(event.removeprefix("data: ")) for event in events if event != ": ping"]
        assert "".join(event["token"]["text"] for event in parsed) == scene.NATIVE_TEXT
        assert parsed[-1]["generated_text"] == scene.NATIVE_TEXT
        assert parsed[-1]["details"]["cost"] > 0

    def test_options(self, deepinfra: Report) -> None:
        assert len(deepinfra.answer("responses")["results"]) == 2
        assert deepinfra.answer("options")["results"] == [{"generated_text": scene.NATIVE_TEXT}]

    @pytest.mark.parametrize(("case", "status", "words"), ERRORS)
    def test_errors(self, deepinfra: Report, case: str, status: int, words: str) -> None:
        answer = deepinfra.answer(case)
        assert answer["status"] == status
        assert words in answer["body"]["error"]["message"]
        assert answer["body"]["detail"] == answer["body"]["error"]["message"]

    def test_its_five_retries_are_answered_alike(self, deepinfra: Report) -> None:
        """It retries every error, refusals too: each of the six tries gets the same answer."""
        assert deepinfra.answer("retried")["statuses"] == [422] * 6


def assert_weather_call(answer: dict[str, Any]) -> None:
    assert (answer["name"], json.loads(answer["arguments"])) == ("get_weather", {"city": "Paris"})
    assert answer["finish_reason"] == "tool_calls"


def assert_counted(usage: dict[str, Any]) -> None:
    assert min(usage["inputTokens"], usage["outputTokens"]) > 0
    assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"]

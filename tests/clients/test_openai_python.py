"""`openai` for Python, in this process: on the scripted engine, and what the demo model can answer on the real one."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.clients import scene
from tests.clients.conftest import Stage

USER: Any = [{"role": "user", "content": scene.QUESTION}]
WEATHER: Any = [{"role": "user", "content": scene.WEATHER_QUESTION}]
TOOLS: Any = [scene.WEATHER_TOOL]


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def client(stage: Stage) -> Iterator[openai.OpenAI]:
    """On both gateways."""
    with stage.server.openai() as client:
        yield client


@pytest.fixture(scope="module")
def scripted_client(scripted: Stage) -> Iterator[openai.OpenAI]:
    with scripted.server.openai() as client:
        yield client


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=scene.MODEL, messages=USER, temperature=0)
    assert answer.choices[0].message.content == scene.ANSWER
    assert answer.usage is not None
    scene.assert_paid(answer.usage.model_dump())
    assert answer._request_id


async def test_async_chat(stage: Stage) -> None:
    async with stage.server.async_openai() as client:
        answer = await client.chat.completions.create(model=scene.MODEL, messages=USER, temperature=0)
    assert answer.choices[0].message.content == scene.ANSWER


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}], ids=["plain", "include_usage"])
def test_streaming_chat(client: openai.OpenAI, options: Any) -> None:
    chunks = list(
        client.chat.completions.create(model=scene.MODEL, messages=USER, temperature=0, stream=True, **options)
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 1
    assert "".join(pieces) == scene.ANSWER
    [usage] = [chunk.usage for chunk in chunks if chunk.usage]
    scene.assert_paid(usage.model_dump())
    assert chunks[-1].usage is usage
    assert (chunks[-1].choices == []) is bool(options)


async def test_async_streaming_chat(stage: Stage) -> None:
    async with stage.server.async_openai() as client:
        stream = await client.chat.completions.create(model=scene.MODEL, messages=USER, temperature=0, stream=True)
        pieces = [chunk.choices[0].delta.content async for chunk in stream]
    assert "".join(piece or "" for piece in pieces) == scene.ANSWER


def test_conversation(client: openai.OpenAI) -> None:
    """The SDK's own object of the first answer goes back as it is."""
    messages: list[Any] = [{"role": "user", "content": scene.NAME}]
    first = client.chat.completions.create(model=scene.MODEL, messages=messages, temperature=0)
    assert first.choices[0].message.content == scene.NICE
    messages += [first.choices[0].message, {"role": "user", "content": scene.WHO}]
    second = client.chat.completions.create(model=scene.MODEL, messages=messages, temperature=0)
    assert second.choices[0].message.content == scene.YOU


def test_tool_call(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model=scene.MODEL, messages=WEATHER, tools=TOOLS, temperature=0)
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    [call] = message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": scene.WEATHER_RESULT}
    messages: Any = [*WEATHER, message, result]
    second = client.chat.completions.create(model=scene.MODEL, messages=messages, tools=TOOLS, temperature=0)
    assert second.choices[0].message.content == scene.WEATHER_ANSWER


def test_streamed_tool_call(client: openai.OpenAI) -> None:
    """With the SDK's helper, which puts the pieces together."""
    with client.chat.completions.stream(model=scene.MODEL, messages=WEATHER, tools=TOOLS, temperature=0) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    assert final.choices[0].finish_reason == "tool_calls"
    assert final.choices[0].message.tool_calls is not None
    [call] = final.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})


def test_stream_helper(scripted_client: openai.OpenAI) -> None:
    with scripted_client.chat.completions.stream(model=scene.MODEL, messages=USER) as stream:
        contents = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(contents) == final.choices[0].message.content == scene.ANSWER


def test_parse_gives_an_object(scripted_client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": scene.PERSON_QUESTION}]
    completions = scripted_client.chat.completions
    answer = completions.parse(model=scene.MODEL, messages=messages, response_format=Person)
    assert answer.choices[0].message.parsed == Person(**scene.PERSON)
    with completions.stream(model=scene.MODEL, messages=messages, response_format=Person) as stream:
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.parsed == Person(**scene.PERSON)


def test_models(scripted_client: openai.OpenAI) -> None:
    models = scripted_client.models
    assert [model.id for model in models.list()] == [scene.MODEL]
    assert models.retrieve(scene.MODEL).id == scene.MODEL


ERRORS: list[tuple[str, dict[str, Any], type[openai.APIStatusError], int, str | None, str | None, str]] = [
    ("wrong_key", {}, openai.AuthenticationError, 401, "invalid_api_key", None, "not valid"),
    ("key", {"top_p": 7}, openai.UnprocessableEntityError, 422, "invalid_parameter", "top_p", "0 < top_p ≤ 1; got 7"),
    ("key", {"store": True}, openai.BadRequestError, 400, "unsupported_parameter", "store", "keeps no answers"),
    ("key", {"model": "farebox/dem"}, openai.NotFoundError, 404, "model_not_found", "model", "Did you mean"),
    ("poor_key", {}, openai.APIStatusError, 402, "insufficient_funds", None, "A lower max_tokens may fit"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
@pytest.mark.parametrize(("key", "fields", "kind", "status", "code", "param", "words"), ERRORS)
def test_errors(
    scripted: Stage,
    key: str,
    fields: dict[str, Any],
    kind: type[openai.APIStatusError],
    status: int,
    code: str,
    param: str | None,
    words: str,
    stream: bool,
) -> None:
    request: dict[str, Any] = {"model": scene.MODEL, "messages": USER, "stream": stream} | fields
    with scripted.server.openai(str(scripted.scene[key])) as client, pytest.raises(kind) as caught:
        client.chat.completions.create(**request)
    error = caught.value
    assert type(error) is kind
    assert (error.status_code, error.code, error.param) == (status, code, param)
    assert words in error.message
    assert error.request_id


async def test_async_errors(scripted: Stage) -> None:
    async with scripted.server.async_openai(str(scripted.scene["wrong_key"])) as client:
        with pytest.raises(openai.AuthenticationError, match="not valid"):
            await client.chat.completions.create(model=scene.MODEL, messages=USER)


def test_a_failure_within_a_stream_is_raised(scripted_client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": scene.BROKEN_QUESTION}]
    stream = scripted_client.chat.completions.create(model=scene.MODEL, messages=messages, stream=True)
    pieces: list[str] = []
    with pytest.raises(openai.APIError, match="The engine failed") as caught:
        pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(pieces) == scene.BROKEN_ANSWER
    assert caught.value.code == "engine_error"


@pytest.mark.parametrize(("key", "fields"), [("poor_key", {}), ("key", {"top_p": 7})], ids=["no_money", "parameter"])
def test_a_refusal_is_not_retried(scripted: Stage, key: str, fields: dict[str, Any]) -> None:
    """The SDK's two retries are for what may pass: a refusal is asked for once."""
    sent: list[object] = []
    with (
        openai.OpenAI(
            base_url=f"{scripted.server.url}/v1",
            api_key=str(scripted.scene[key]),
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [sent.append]}),
        ) as client,
        pytest.raises(openai.APIStatusError),
    ):
        client.chat.completions.create(model=scene.MODEL, messages=USER, **fields)
    assert len(sent) == 1

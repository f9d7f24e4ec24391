"""A stream read line by line, as Python splits lines, is whole: no event breaks at a line end of Unicode."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.event_text import event_bytes
from engine.script import RequestScript, Script, Step, emit, fail
from tests.gateway.conftest import DEMO, LLAMA2, GatewayServer, GatewayServers

ENDS = "\x85\u2028\u2029"
# Everything else that `str.splitlines` splits at, which JSON escapes.
CONTROLS = "\n\r\x0b\x0c\x1c\x1d\x1e"
SAID = "one" + "".join(f"{end}{index}" for index, end in enumerate(ENDS + CONTROLS)) + " é"
ARGUMENTS = json.dumps({"text": SAID}, ensure_ascii=False)
SCRIPT = Script(
    (
        RequestScript((Step("call", "say", arguments=ARGUMENTS),), match="please call"),
        RequestScript((Step("reason", SAID), emit("so")), match="please reason"),
        RequestScript((emit(SAID), fail("broken")), match="please fail"),
        RequestScript((emit(SAID),)),
    )
)
PARAMETERS = {"type": "object", "properties": {"text": {"type": "string"}}}
FUNCTION = {"name": "say", "description": SAID, "parameters": PARAMETERS}


def chat(text: str, **fields: object) -> tuple[str, dict[str, object]]:
    return "/v1/chat/completions", {"model": DEMO, "messages": [{"role": "user", "content": text}], **fields}


def responses(text: str, **fields: object) -> tuple[str, dict[str, object]]:
    return "/v1/responses", {"model": DEMO, "input": text, "instructions": SAID, "metadata": {"a": SAID}, **fields}


def messages(text: str, **fields: object) -> tuple[str, dict[str, object]]:
    asked = [{"role": "user", "content": text}]
    return "/v1/messages", {"model": DEMO, "max_tokens": 99, "messages": asked, **fields}


def completions(text: str, **fields: object) -> tuple[str, dict[str, object]]:
    return "/v1/completions", {"model": DEMO, "prompt": text, **fields}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": chat("hi"),
    "chat with logprobs": chat("hi", logprobs=True, top_logprobs=2),
    "chat with a call": chat("please call", tools=[{"type": "function", "function": FUNCTION}]),
    "chat with reasoning": chat("please reason"),
    "chat that fails": chat("please fail"),
    "completions": completions("hi"),
    "completions with an echo": completions("please echo " + SAID, echo=True),
    "completions with logprobs": completions("hi", logprobs=2),
    "native": (f"/v1/inference/{LLAMA2}", {"input": "hi"}),
    "responses": responses("hi"),
    "responses with logprobs": responses("hi", include=["message.output_text.logprobs"], top_logprobs=2),
    "responses with a call": responses("please call", tools=[{"type": "function", **FUNCTION}]),
    "responses with reasoning": responses("please reason"),
    "messages": messages("hi"),
    "messages with a call": messages("please call", tools=[{"name": "say", "input_schema": PARAMETERS}]),
    "messages with reasoning": messages("please reason"),
    "messages that fail": messages("please fail"),
}


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(script=SCRIPT) as running:
        yield running


def strings(value: object) -> str:
    """All that is said in a document, one after the other."""
    match value:
        case str():
            return value
        case dict():
            return "".join(map(strings, value.values()))
        case list():
            return "".join(map(strings, value))
    return ""


@pytest.mark.parametrize("name", CASES)
async def test_lines_as_python_splits_them_are_the_events(server: GatewayServer, name: str) -> None:
    path, body = CASES[name]
    async with server.client() as client:
        answer = await client.post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    lines = answer.text.splitlines()
    assert lines == answer.text.removesuffix("\n").split("\n")
    assert all(line == "" or line.startswith(("data: ", "event: ", ": ")) for line in lines)
    events: list[Any] = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    said = strings(events)
    assert all(end in said or json.dumps(end)[1:-1] in said for end in ENDS + CONTROLS)


@pytest.mark.parametrize("end", ENDS)
def test_an_event_is_the_same_json(end: str) -> None:
    event = json.dumps({f"a{end}": f"{end}é{end}\\u2028"}, ensure_ascii=False)
    written = event_bytes(event)
    assert json.loads(written) == json.loads(event)
    assert len(written.decode().splitlines()) == 1
    assert "é".encode() in written

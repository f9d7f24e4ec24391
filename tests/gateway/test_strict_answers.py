"""Every answer is JSON that every reader takes, whatever the model says and whatever came in."""

import json
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import pytest

from engine.script import RequestScript, Script, Step, emit, fail
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers

HALF = "\ud83d"
SCRIPT = Script(
    requests=(
        RequestScript((Step("call", "keep", arguments=r'{"n": "\ud83d"}'),), match="an escaped half"),
        RequestScript((Step("call", "keep", arguments=f'{{"n": "{HALF} x"}}'),), match="a bare half"),
        RequestScript((Step("call", "keep", arguments=r'{"n": "\ud83d\ude00"}'),), match="a whole pair"),
        RequestScript((Step("call", "keep", arguments='{"n": 1e999, "m": [-1e999]}'),), match="too large"),
        RequestScript((Step("call", "keep", arguments='{"n": Infinity, "m": [NaN, 1]}'),), match="no numbers"),
        RequestScript((Step("call", "keep", arguments='{"n": 1e999, "m": "cut'),), match="cut off"),
        RequestScript((Step("reason", f"let me {HALF}"), emit(f"One {HALF} two")), match="text"),
        RequestScript((emit("one two"), fail("broken")), match="CUT"),
        RequestScript((emit("fine"),)),
    )
)
PARAMETERS: dict[str, Any] = {"type": "object"}
ROUTES = ["/v1/chat/completions", "/v1/responses", "/v1/messages"]


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(script=SCRIPT) as running:
        yield running


def body(route: str, text: str, *, stream: bool = False, parameters: object = PARAMETERS) -> dict[str, Any]:
    common = {"model": DEMO, "stream": stream}
    said = [{"role": "user", "content": text}]
    if route.endswith("chat/completions"):
        tool: Any = {"type": "function", "function": {"name": "keep", "parameters": parameters}}
        return {**common, "messages": said, "tools": [tool]}
    if route.endswith("responses"):
        return {**common, "input": text, "tools": [{"type": "function", "name": "keep", "parameters": parameters}]}
    return {**common, "messages": said, "max_tokens": 50, "tools": [{"name": "keep", "input_schema": parameters}]}


def strict(text: str) -> Any:
    """Parsed as JSON has it: no Infinity, no NaN, and every string can be sent on."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    found = json.loads(text, parse_constant=refuse)
    json.dumps(found, ensure_ascii=False).encode()
    return found


async def answer(server: GatewayServer, route: str, text: str, stream: bool) -> tuple[str, Any]:
    """The text and the last call's arguments, parsed, of an answer, put together where it is streamed."""
    async with server.client() as http:
        response = await http.post(route, json=body(route, text, stream=stream))
    assert response.status_code == 200, response.text
    if not stream:
        return _whole(route, strict(response.text))
    events = [strict(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert not [event for event in events if "error" in event or event.get("type") == "error"]
    return _streamed(route, events)


def _whole(route: str, document: Any) -> tuple[str, Any]:
    if route.endswith("chat/completions"):
        message = document["choices"][0]["message"]
        calls = [strict(call["function"]["arguments"]) for call in message.get("tool_calls", ())]
        return message["content"] or "", (calls or [None])[-1]
    if route.endswith("responses"):
        parts = [part["text"] for item in document["output"] for part in item.get("content", ())]
        calls = [strict(item["arguments"]) for item in document["output"] if item["type"] == "function_call"]
        return "".join(parts), (calls or [None])[-1]
    texts = [block["text"] for block in document["content"] if block["type"] == "text"]
    return "".join(texts), ([block["input"] for block in document["content"] if block["type"] == "tool_use"] or [None])[
        -1
    ]


def _streamed(route: str, events: list[Any]) -> tuple[str, Any]:
    text, arguments = "", ""
    for event in events:
        if route.endswith("chat/completions"):
            delta = event["choices"][0]["delta"] if event["choices"] else {}
            text += delta.get("content") or ""
            arguments += "".join(call["function"].get("arguments", "") for call in delta.get("tool_calls", ()))
        elif route.endswith("responses"):
            text += event["delta"] if event["type"] == "response.output_text.delta" else ""
            arguments += event["delta"] if event["type"] == "response.function_call_arguments.delta" else ""
        else:
            text += event.get("delta", {}).get("text", "")
            arguments += event.get("delta", {}).get("partial_json", "")
    return text, strict(arguments) if arguments else None


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("route", ROUTES)
async def test_half_a_surrogate_pair_becomes_a_whole_character(server: GatewayServer, route: str, stream: bool) -> None:
    assert (await answer(server, route, "an escaped half", stream))[1] == {"n": "\ufffd"}
    assert (await answer(server, route, "a bare half", stream))[1] == {"n": "\ufffd x"}
    assert (await answer(server, route, "a whole pair", stream))[1] == {"n": "\U0001f600"}
    assert "One \ufffd two" in (await answer(server, route, "text", stream))[0]


@pytest.mark.parametrize("route", ROUTES)
async def test_a_call_is_strict_json_whatever_its_numbers(server: GatewayServer, route: str) -> None:
    for stream in (False, True):
        assert (await answer(server, route, "no numbers", stream))[1] == {"n": None, "m": [None, 1]}
        await answer(server, route, "too large", stream)


async def test_an_object_has_null_for_a_number_beyond_json(server: GatewayServer) -> None:
    """Anthropic's `input` is an object: there the number itself would have to be written."""
    assert (await answer(server, "/v1/messages", "too large", False))[1] == {"n": None, "m": [None]}
    assert (await answer(server, "/v1/messages", "cut off", False))[1] == {"n": None, "m": "cut"}


SCHEMA = {
    "/v1/chat/completions": "tools[0].function.parameters.properties.n.maximum",
    "/v1/responses": "tools[0].parameters.properties.n.maximum",
    "/v1/messages": "tools[0].input_schema.properties.n.maximum",
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("number", ["1e400", "-1e400", f"{'9' * 400}.0"])
async def test_a_number_beyond_json_is_refused_where_it_stands(server: GatewayServer, route: str, number: str) -> None:
    parameters = {"type": "object", "properties": {"n": {"maximum": "NUMBER"}}}
    raw = json.dumps(body(route, "hi", parameters=parameters)).replace('"NUMBER"', number)
    async with server.client() as http:
        refused = await http.post(route, content=raw, headers={"content-type": "application/json"})
    assert refused.status_code == 422, refused.text
    error = strict(refused.text)["error"]
    assert (error["param"], error["code"]) == (SCHEMA[route], "invalid_parameter")
    assert "1.8e308" in error["message"]


@pytest.mark.parametrize("field", ["chat_template_kwargs", "response_format"])
async def test_other_objects_of_a_request_hold_no_such_number(server: GatewayServer, field: str) -> None:
    value = (
        {"type": "json_schema", "json_schema": {"schema": {"x": [1, "NUMBER"]}}}
        if "format" in field
        else {"x": "NUMBER"}
    )
    raw = json.dumps(body(ROUTES[0], "hi") | {field: value}).replace('"NUMBER"', "1e999")
    async with server.client() as http:
        refused = await http.post(ROUTES[0], content=raw, headers={"content-type": "application/json"})
    assert refused.status_code == 422, refused.text
    assert refused.json()["error"]["param"].startswith(field)


@pytest.mark.parametrize("route", ROUTES)
async def test_half_a_surrogate_pair_that_is_sent_is_no_json(server: GatewayServer, route: str) -> None:
    raw = json.dumps(body(route, "HALF")).replace("HALF", r"\ud83d")
    async with server.client() as http:
        refused = await http.post(route, content=raw, headers={"content-type": "application/json"})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("The body is not valid JSON")


async def test_the_error_event_of_a_responses_stream_is_numbered(server: GatewayServer) -> None:
    async with server.client() as http:
        response = await http.post("/v1/responses", json=body("/v1/responses", "CUT please", stream=True))
    events = [strict(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert events[-1]["type"] == "error"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


EMPTY: list[Any] = [None, "", [], [{"type": "text", "text": ""}]]


@pytest.mark.parametrize("content", EMPTY)
async def test_a_tools_result_may_be_empty(server: GatewayServer, content: Any) -> None:
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": "t1"}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "keep", "input": {}}]},
        {"role": "user", "content": [result if content is None else {**result, "content": content}]},
    ]
    async with server.client() as http:
        response = await http.post("/v1/messages", json=body("/v1/messages", "hi") | {"messages": messages})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("output", ["", [], [{"type": "input_text", "text": ""}]])
async def test_a_functions_output_may_be_empty(server: GatewayServer, output: Any) -> None:
    items = [
        {"role": "user", "content": "hi"},
        {"type": "function_call", "call_id": "c1", "name": "keep", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": output},
    ]
    async with server.client() as http:
        response = await http.post("/v1/responses", json=body("/v1/responses", "hi") | {"input": items})
    assert response.status_code == 200, response.text

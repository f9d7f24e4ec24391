"""Structured output through every API: kept, or refused with the field; and nobody waits for another one's schema."""

import json
import threading
import time
from typing import Any

import jsonschema
import pytest

from tests.server import Server

HELLO = [{"role": "user", "content": "Hello there, who are you?"}]
TAGS: dict[str, Any] = {
    "type": "object",
    "properties": {"tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}},
    "required": ["tags"],
}
THING: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TAGGED = {**THING, "properties": {**THING["properties"], **TAGS["properties"]}}
CALL = {"type": "function", "function": {"name": "Thing"}}


def chat_with(schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return "/v1/chat/completions", {"messages": HELLO, "max_tokens": 80, "response_format": form}


def completion_with(schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return "/v1/completions", {"prompt": "Hello!", "max_tokens": 80, "response_format": form}


def response_with(schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    form = {"type": "json_schema", "name": "x", "schema": schema}
    return "/v1/responses", {"input": "Hello!", "max_output_tokens": 80, "text": {"format": form}}


def message_with(schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    form = {"type": "json_schema", "schema": schema}
    return "/v1/messages", {"messages": HELLO, "max_tokens": 80, "output_config": {"format": form}}


def chat_calling(schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    tool = {"type": "function", "function": {"name": "Thing", "parameters": schema, "strict": True}}
    return "/v1/chat/completions", {"messages": HELLO, "max_tokens": 80, "tools": [tool], "tool_choice": CALL}


def response_calling(schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    tool = {"type": "function", "name": "Thing", "parameters": schema, "strict": True}
    return "/v1/responses", {"input": "Hello!", "max_output_tokens": 80, "tools": [tool]}


def message_calling(schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    tool = {"name": "Thing", "input_schema": schema, "strict": True}
    return "/v1/messages", {"messages": HELLO, "max_tokens": 80, "tools": [tool], "tool_choice": {"type": "any"}}


PLACES = [
    (chat_with, "response_format.json_schema.schema"),
    (completion_with, "response_format.json_schema.schema"),
    (response_with, "text.format.schema"),
    (message_with, "output_config.format.schema"),
    (chat_calling, "tools[0].function.parameters"),
    (response_calling, "tools[0].parameters"),
    (message_calling, "tools[0].input_schema"),
]


def send(server: Server, path: str, body: dict[str, Any]) -> Any:
    with server.client() as http:
        return http.post(path, json={"model": "farebox/demo", **body})


@pytest.mark.parametrize(("made", "place"), PLACES, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize(
    ("schema", "where"),
    [
        (TAGS, ".properties.tags.uniqueItems"),
        ({"type": "object", "properties": {"n": {"allOf": [{}, {"minimum": 1}]}}}, ".properties.n.allOf"),
        ({"type": "object", "properties": {"n": {"type": "string", "minLength": -1}}}, ".properties.n.minLength"),
        ({"type": "object", "properties": {"n": {"type": "string", "pattern": "(?i)a"}}}, ".properties.n.pattern"),
    ],
    ids=["uniqueItems", "allOf", "minLength", "pattern"],
)
def test_what_cannot_be_kept_is_a_400_that_names_it(
    server: Server, made: Any, place: str, schema: dict[str, Any], where: str
) -> None:
    answer = send(server, *made(schema))
    assert answer.status_code == 400, answer.text[:500]
    assert f"{place}{where}" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("made", "place"), PLACES[:4], ids=lambda value: getattr(value, "__name__", value))
def test_a_schema_that_can_be_kept_is_kept(server: Server, made: Any, place: str) -> None:
    answer = send(server, *made({"type": "object", "properties": {"k": {"enum": ["v"]}}, "required": ["k"]}))
    assert answer.status_code == 200, answer.text[:500]
    assert '{\\"k\\"' in answer.text.replace(" ", "").replace("\\n", "")


def test_a_forced_call_keeps_to_the_functions_schema(server: Server) -> None:
    for seed in range(1, 9):
        tool = {"type": "function", "function": {"name": "Thing", "parameters": TAGGED}}
        body = {"messages": HELLO, "seed": seed, "max_tokens": 200, "tools": [tool], "tool_choice": CALL}
        choice = send(server, "/v1/chat/completions", body).json()["choices"][0]
        if choice["finish_reason"] != "length":
            [call] = choice["message"]["tool_calls"]
            jsonschema.validate(json.loads(call["function"]["arguments"]), THING | {"additionalProperties": True})


@pytest.mark.parametrize("expression", ["(?P<y>[0-9]{4})", "(?i)yes", "foo**", "a++", "a{1000}{1000}", r"\p{L}+"])
def test_an_expression_that_cannot_be_kept_is_a_400(server: Server, expression: str) -> None:
    for path, body in (("/v1/chat/completions", {"messages": HELLO}), ("/v1/completions", {"prompt": "Hello!"})):
        answer = send(server, path, {**body, "response_format": {"type": "regex", "regex": expression}})
        assert answer.status_code == 400, answer.text[:500]
        assert answer.json()["error"]["param"] == "response_format.regex"


def test_costly_schemas_of_one_key_leave_the_others_alone(server: Server) -> None:
    """Each of these took the event loop more than a second, and the engine's only thread for grammars as well."""
    costly = [
        {
            "properties": {
                f"{name}{n}": {"type": "string", "pattern": f"((a|b){{0,130}}){{0,130}}{n}"} for name in "abcdef"
            }
        }
        for n in range(3)
    ]
    statuses: list[int] = []

    def attack(schema: dict[str, Any]) -> None:
        statuses.append(send(server, *chat_with(schema)).status_code)

    threads = [threading.Thread(target=attack, args=(schema,)) for schema in costly]
    for thread in threads:
        thread.start()
    slowest = 0.0
    with server.client() as http:
        while any(thread.is_alive() for thread in threads):
            began = time.perf_counter()
            assert http.get("/health/live").is_success
            slowest = max(slowest, time.perf_counter() - began)
    assert statuses == [400, 400, 400]
    print(f"slowest answer of /health/live meanwhile: {slowest:.3f} s")  # shown, not asserted: it is wall-clock time


def test_every_worker_keeps_and_refuses_the_same(workers: Server) -> None:
    kept = {"type": "object", "properties": {"k": {"enum": ["v"]}}, "required": ["k"]}
    for schema, status in ((TAGS, 400), (kept, 200)) * 6:  # a connection each, so that both workers get some
        answer = send(workers, *chat_with(schema))
        assert answer.status_code == status, answer.text[:500]

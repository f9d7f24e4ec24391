"""What coding agents and SDKs send of tools, on the Responses and the chat route, and what comes back."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from engine.script import RequestScript, Script, Step, emit, fail
from gateway.models.parameters import shipped_profiles
from gateway.protocol.body import RequestBody
from gateway.protocol.chat import ChatBody
from gateway.protocol.responses import ResponsesBody
from tests.gateway.checking import validate
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers

PROFILE = shipped_profiles()["llama3-turbo"]
TEXT = "*** Begin\n+“é”\n"
ARGUMENTS = json.dumps({"input": TEXT})
SCRIPT = Script(
    requests=(
        RequestScript((emit("one two"), fail("broken")), match="CUT please"),
        RequestScript((Step("call", "patch", arguments=ARGUMENTS),), match="please patch"),
        RequestScript((Step("call", "helpers__ask", arguments='{"word": "a"}'),), match="please ask"),
        RequestScript((Step("call", "ask", arguments='{"word": "a"}'),), match="without its namespace"),
        RequestScript((Step("reason", "let me think"), emit("Hello there")), match="please think"),
        RequestScript((emit("Good day"),)),
    )
)
ASKED = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Good day."}]}
WORD = {
    "type": "object",
    "properties": {"word": {"type": "string"}},
    "required": ["word"],
    "additionalProperties": False,
}
LOOK_UP = {"type": "function", "name": "look_up", "description": "Looks up.", "strict": False, "parameters": WORD}
HELPERS = {
    "type": "namespace",
    "name": "helpers",
    "description": "Functions that the client runs.",
    "tools": [{**LOOK_UP, "name": "ask"}, {"type": "custom", "name": "note"}],
}
LARK = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}
REGEX = {"type": "grammar", "syntax": "regex", "definition": "[a-z]+"}
PATCH = {"type": "custom", "name": "patch", "description": "Applies a patch.", "format": LARK}
HOSTED = ("web_search", "image_generation", "tool_search", "code_interpreter", "file_search", "mcp", "local_shell")


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(script=SCRIPT) as running:
        yield running


def responding(said: str = "", **fields: Any) -> dict[str, Any]:
    return {"model": DEMO, "input": said or [ASKED], "max_output_tokens": 20, **fields}


def chatting(text: str = "Good day.", **fields: Any) -> dict[str, Any]:
    return {"model": DEMO, "messages": [{"role": "user", "content": text}], "max_tokens": 20, **fields}


SENT: list[tuple[dict[str, Any], str]] = [
    ({"client_metadata": {"session_id": "one"}}, ""),
    ({"store": False, "include": ["reasoning.encrypted_content"]}, ""),
    ({"reasoning": {"summary": "auto"}}, ""),
    ({"reasoning": {"summary": "concise", "context": "auto"}, "text": {"verbosity": "low"}}, ""),
    ({"tools": [LOOK_UP, HELPERS]}, ""),
    ({"tools": [LOOK_UP, {"type": "web_search", "external_web_access": False}]}, "tools[1] (web_search)"),
    ({"tools": [{"type": kind} for kind in HOSTED]}, ", ".join(f"tools[{n}] ({k})" for n, k in enumerate(HOSTED))),
    ({"tools": [{"type": "what_comes_next_year", "x": 1}]}, "tools[0] (what_comes_next_year)"),
    ({"tools": [PATCH, {**PATCH, "name": "b", "format": {"type": "text"}}]}, "tools[0].format"),
    ({"tools": [LOOK_UP], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [LOOK_UP]}}, ""),
    ({"stream": True, "ignore_eos": True}, ""),
    ({"stream": True, "seed": 1, "stop": ["x"], "top_k": 3, "min_p": 0.1, "presence_penalty": 1}, ""),
    ({"input": [{**ASKED, "phase": "commentary", "some": {"x": 1}}]}, ""),
    ({"input": [{"type": "additional_tools", "role": "developer", "tools": [LOOK_UP]}, ASKED]}, ""),
    ({"input": [ASKED, {"type": "web_search_call", "id": "ws", "status": "completed"}]}, "input[1] (web_search_call)"),
    ({"tools": [{**LOOK_UP, "name": f"f{n}", "defer_loading": True} for n in range(1024)]}, ""),
]


@pytest.mark.parametrize(("fields", "ignored"), SENT, ids=lambda value: str(value)[:50])
async def test_what_codex_and_others_send_is_taken(server: GatewayServer, fields: dict[str, Any], ignored: str) -> None:
    async with server.client() as http:
        answer = await http.post("/v1/responses", json=responding(**fields))
    assert answer.status_code == 200, answer.text
    assert answer.headers.get("farebox-ignored", "") == ignored
    if not fields.get("stream"):
        Response.model_validate(answer.json(), strict=True)


HISTORY: list[dict[str, Any]] = [
    ASKED,
    {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "of-another-server", "status": None},
    {
        "type": "function_call",
        "call_id": "c1",
        "name": "ask",
        "namespace": "helpers",
        "arguments": "{}",
        "caller": None,
    },
    {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "x"}]},
    {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": TEXT, "status": "completed"},
    {"type": "custom_tool_call_output", "call_id": "c2", "output": "Done"},
    {
        "role": "assistant",
        "phase": "final_answer",
        "content": [{"type": "output_text", "text": "a", "annotations": []}],
    },
    ASKED,
]


def conversation(kind: type[RequestBody], body: dict[str, Any]) -> Any:
    made = validate(kind, body, PROFILE).prompt_source()
    return made[0] if isinstance(made, tuple) else made


def test_a_history_speaks_of_tools_by_the_names_that_the_model_was_told() -> None:
    made = conversation(ResponsesBody, responding(input=HISTORY, tools=[HELPERS, PATCH]))
    calls = [call["function"] for message in made.messages for call in message.get("tool_calls", ())]
    assert calls == [
        {"name": "helpers__ask", "arguments": "{}"},
        {"name": "patch", "arguments": json.dumps({"input": TEXT}, ensure_ascii=False)},
    ]
    told = [tool["function"] for tool in made.tools]
    assert [function["name"] for function in told] == ["helpers__ask", "helpers__note", "patch"]
    assert told[0]["description"] == "Functions that the client runs.\n\nLooks up."
    assert 'start: "a"' in told[2]["description"]
    assert [message["content"] for message in made.messages if message["role"] == "tool"] == ["x", "Done"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_custom_tools_call_has_a_text(server: GatewayServer, streamed: bool) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.secret) as client:
        asked: Any = responding("please patch", tools=[PATCH])
        if not streamed:
            response = await client.responses.create(**asked)
        else:
            events: list[Any] = [event async for event in await client.responses.create(**asked, stream=True)]
            response = events[-1].response
            pieces = [event.delta for event in events if event.type == "response.custom_tool_call_input.delta"]
            (ended,) = [event for event in events if event.type == "response.custom_tool_call_input.done"]
            assert len(pieces) > 1
            assert "".join(pieces) == ended.input == TEXT
            assert ended.item_id == response.output[0].id
    (call,) = response.output
    assert (call.type, call.name, call.input) == ("custom_tool_call", "patch", TEXT)  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["please ask", "please ask without its namespace"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_call_has_its_namespace(server: GatewayServer, text: str, streamed: bool) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.secret) as client:
        asked: Any = responding(text, tools=[HELPERS])
        if streamed:
            *_, last = [event async for event in await client.responses.create(**asked, stream=True)]
            response = last.response  # type: ignore[union-attr]
        else:
            response = await client.responses.create(**asked)
    (call,) = response.output
    assert (call.type, call.name, call.namespace) == ("function_call", "ask", "helpers")  # type: ignore[union-attr]


async def test_reasoning_is_given_to_be_sent_back_where_it_is_asked_for(server: GatewayServer) -> None:
    async with server.client() as http:
        plain = await http.post("/v1/responses", json=responding("please think"))
        asked = await http.post(
            "/v1/responses", json=responding("please think", include=["reasoning.encrypted_content"])
        )
    assert "encrypted_content" not in plain.json()["output"][0]
    item = asked.json()["output"][0]
    again = conversation(ResponsesBody, responding(input=[ASKED, {**item, "content": None}, ASKED]))
    assert again.messages[1] == {"role": "assistant", "reasoning": "let me think"}


async def test_the_error_event_of_a_stream_is_numbered(server: GatewayServer) -> None:
    async with server.client() as http:
        answer = await http.post("/v1/responses", json={"model": DEMO, "input": "CUT please", "stream": True})
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "engine_error")


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"input": [ASKED, {"type": "item_reference", "id": "msg_0"}, ASKED]}, "input[1]", "store: false"),
    ({"input": [{"type": "compaction", "encrypted_content": "x"}, ASKED]}, "input[0]", "send the conversation"),
    ({"previous_response_id": "resp_1"}, "previous_response_id", "keeps no answers"),
    ({"store": True}, "store", "keeps no answers"),
    ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice", "runs no such tool"),
]


@pytest.mark.parametrize(("fields", "param", "words"), REFUSED)
async def test_what_would_make_another_answer_is_refused_with_its_reason(
    server: GatewayServer, fields: dict[str, Any], param: str, words: str
) -> None:
    async with server.client() as http:
        answer = await http.post("/v1/responses", json=responding(**fields))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", param)
    assert words in error["message"]


def allowed(mode: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": list(tools)}


CHOICES: list[tuple[Any, list[str], object]] = [
    (None, ["look_up", "helpers__ask", "helpers__note", "patch"], "auto"),
    ("required", ["look_up", "helpers__ask", "helpers__note", "patch"], "required"),
    ({"type": "function", "name": "ask", "namespace": "helpers"}, [], "helpers__ask"),
    ({"type": "function", "name": "ask"}, [], "helpers__ask"),
    ({"type": "custom", "name": "patch"}, [], "patch"),
    (allowed("required", {"type": "custom", "name": "patch"}, {"type": "web_search"}), ["patch"], "required"),
    (allowed("auto", {"type": "namespace", "name": "helpers"}), ["helpers__ask", "helpers__note"], "auto"),
    (allowed("auto", {"type": "web_search"}), [], "none"),
]


@pytest.mark.parametrize(("choice", "told", "means"), CHOICES, ids=lambda value: str(value)[:40])
def test_a_choice_is_among_all_kinds_of_tools(choice: Any, told: list[str], means: object) -> None:
    tools = [LOOK_UP, HELPERS, PATCH, {"type": "web_search"}]
    made = conversation(ResponsesBody, responding(tools=tools, tool_choice=choice))
    if isinstance(made.tool_choice, dict):
        assert made.tool_choice == {"type": "function", "function": {"name": means}}
    else:
        assert ([tool["function"]["name"] for tool in made.tools], made.tool_choice) == (told, means)


def test_names_that_come_to_the_same_are_told_apart() -> None:
    first = {"type": "namespace", "name": "a", "tools": [{"type": "function", "name": "b__c"}]}
    second = {"type": "namespace", "name": "a__b", "tools": [{"type": "function", "name": "c"}]}
    made, toolbox = validate(ResponsesBody, responding(tools=[first, second]), PROFILE).prompt_source()
    names = [tool["function"]["name"] for tool in made.tools]
    assert len(set(names)) == 2
    assert [(toolbox.called(name).namespace, toolbox.called(name).name) for name in names] == [
        ("a", "b__c"),
        ("a__b", "c"),
    ]


def test_a_grammar_that_is_a_regular_expression_is_kept_and_told_where() -> None:
    made = conversation(ResponsesBody, responding(tools=[LOOK_UP, {**PATCH, "format": REGEX}]))
    assert made.held == {"patch"}
    assert made.tools[1]["function"]["parameters"]["properties"]["input"]["pattern"] == "^(?:[a-z]+)$"
    assert list(made.schema_places) == ["tools[0].parameters", "tools[1].format"]


CHAT_PATCH = {"type": "custom", "custom": {"name": "patch", "format": {"type": "grammar", "grammar": REGEX}}}
CHAT_LOOK_UP = {"type": "function", "function": {"name": "look_up", "parameters": WORD}}


def test_chat_has_custom_tools_and_allowed_ones() -> None:
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "custom", "custom": {"name": "patch"}}]},
    }
    made = conversation(ChatBody, chatting(tools=[CHAT_LOOK_UP, CHAT_PATCH], tool_choice=choice))
    assert ([tool["function"]["name"] for tool in made.tools], made.tool_choice) == (["patch"], "required")
    assert (made.held, list(made.schema_places)) == ({"patch"}, ["tools[1].custom.format"])
    named = conversation(
        ChatBody, chatting(tools=[CHAT_PATCH], tool_choice={"type": "custom", "custom": {"name": "patch"}})
    )
    assert named.tool_choice == {"type": "function", "function": {"name": "patch"}}


@pytest.mark.parametrize("streamed", [True, False])
async def test_chats_custom_calls_have_a_text_and_go_back(server: GatewayServer, streamed: bool) -> None:
    body = chatting("please patch", tools=[CHAT_PATCH, {"type": "web_search"}])
    async with server.client() as http:
        answer = await http.post("/v1/chat/completions", json={**body, "stream": streamed})
        assert answer.headers["farebox-ignored"] == "tools[1] (web_search)"
        if streamed:
            lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
            choices = [choice for line in lines for choice in json.loads(line)["choices"]]
            deltas = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
            call = {"id": deltas[0]["id"], "type": deltas[0]["type"], "custom": dict(deltas[0]["custom"])}
            call["custom"]["input"] = "".join(delta["custom"]["input"] for delta in deltas)
            assert choices[-1]["finish_reason"] == "tool_calls"
        else:
            (choice,) = answer.json()["choices"]
            (call,) = choice["message"]["tool_calls"]
        assert call == {"id": "call_0", "type": "custom", "custom": {"name": "patch", "input": TEXT}}
        turns = [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_0", "content": "Done"},
        ]
        again = await http.post("/v1/chat/completions", json={**body, "messages": [*body["messages"], *turns]})
    assert again.status_code == 200, again.text
    made = conversation(ChatBody, {**body, "messages": [*body["messages"], *turns]})
    (told,) = made.messages[1]["tool_calls"]
    assert told["function"] == {"name": "patch", "arguments": json.dumps({"input": TEXT}, ensure_ascii=False)}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
async def test_chat_leaves_reasoning_out_where_it_isnt_wanted(
    server: GatewayServer, wanted: bool, streamed: bool
) -> None:
    body = chatting("please think", include_reasoning=wanted, stream=streamed)
    async with server.client() as http:
        answer = await http.post("/v1/chat/completions", json=body)
    assert ("think" in answer.text) == wanted
    assert "Hello" in answer.text
    (entry,) = await server.entries()
    assert entry["completion_tokens"] == 5

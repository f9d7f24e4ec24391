"""What Anthropic's clients send beside a conversation: what is honoured, what is named, what changes nothing."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import beta_async_tool

from engine.base import Conversation
from engine.script import RequestScript, Script, Step, emit
from gateway.models.parameters import shipped_profiles
from gateway.protocol.anthropic import MessagesBody
from tests.gateway.checking import validate
from tests.gateway.conftest import DEMO, GatewayServer, GatewayServers

SCRIPT = Script(
    (
        RequestScript((emit("It is sunny."),), match="21 degrees"),
        RequestScript((Step("call", "weather", arguments='{"city": "Paris"}'),), match="weather"),
        RequestScript((emit("Good day."),)),
    )
)
SAID: Any = [{"role": "user", "content": "Good day."}]
USED: Any = {"type": "tool_use", "id": "t1", "name": "look_up", "input": {}}
LOOK_UP: Any = {"name": "look_up", "input_schema": {"type": "object"}}
SEARCH: Any = {"type": "web_search_20250305", "name": "web_search"}


@pytest.fixture
async def server(gateway_server: GatewayServers) -> AsyncIterator[GatewayServer]:
    async with gateway_server(SCRIPT) as running:
        yield running


def conversation(**fields: Any) -> Conversation:
    body = validate(MessagesBody, {"model": DEMO, "messages": SAID, **fields}, shipped_profiles()["llama3-turbo"])
    found: Conversation = body.prompt_source()[0]
    return found


def turns(*results: Any) -> list[dict[str, Any]]:
    """A conversation in which a tool gave these results."""
    blocks = [{"type": "tool_result", "tool_use_id": "t1", **result} for result in results]
    return [*SAID, {"role": "assistant", "content": [USED]}, {"role": "user", "content": blocks}]


ACCEPTED: dict[str, dict[str, Any]] = {
    "nothing to clear": {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
    "no edits": {"context_management": {"edits": []}},
    "tool results to clear": {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
    "thinking that is the model's choice": {"thinking": {"type": "adaptive", "display": "omitted"}},
    "no thinking": {"thinking": {"type": "disabled"}},
    "thinking between tools": {"thinking": {"type": "between_tools"}},
    "an effort": {"output_config": {"effort": "xhigh"}},
    "marks for a cache": {"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
    "a system of nothing": {"system": []},
    "an empty system text": {"system": [{"type": "text", "text": ""}]},
    "an empty result": {"messages": turns({"content": []}), "tools": [LOOK_UP]},
    "a result of an empty text": {"messages": turns({"content": [{"type": "text", "text": ""}]}), "tools": [LOOK_UP]},
    "a result without content": {"messages": turns({"is_error": True}), "tools": [LOOK_UP]},
    "an answer of nothing": {"messages": [*SAID, {"role": "assistant", "content": []}, *SAID]},
    "metadata": {"metadata": {"user_id": '{"device_id": "d"}'}},
    "betas": {"betas": ["context-management-2025-06-27"]},
    "models to fall back on": {"fallbacks": [{"model": "claude"}]},
    "extras of a tool": {
        "tools": [LOOK_UP | {"input_examples": [{}], "allowed_callers": ["direct"], "eager_input_streaming": True}]
    },
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_what_changes_nothing_is_accepted(server: GatewayServer, name: str) -> None:
    body = {"model": DEMO, "max_tokens": 20, "messages": SAID, **ACCEPTED[name]}
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "context-management-2025-06-27"}
    async with server.client() as http:
        for path in ("/v1/messages?beta=true", "/anthropic/v1/messages", "/v1/messages/count_tokens?beta=true"):
            answer = await http.post(path, json=body, headers=headers)
            assert answer.status_code == 200, answer.text
            assert "farebox-ignored" not in answer.headers or path.endswith("count_tokens?beta=true")


NAMED: dict[str, tuple[dict[str, Any], str]] = {
    "a search": ({"tools": [LOOK_UP, SEARCH]}, "tools[1] (web_search_20250305)"),
    "a search alone": ({"tools": [SEARCH]}, "tools[0] (web_search_20250305)"),
    "a shell that models know by heart": (
        {"tools": [{"type": "bash_20250124", "name": "bash"}]},
        "tools[0] (bash_20250124)",
    ),
    "an MCP server's tools": (
        {
            "mcp_servers": [{"type": "url", "url": "https://a.example", "name": "a"}],
            "tools": [{"type": "mcp_toolset", "mcp_server_name": "a"}],
        },
        "mcp_servers, tools[0] (mcp_toolset)",
    ),
    "a budget that can't be kept": (
        {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        "thinking.budget_tokens",
    ),
    "a tool that is added": (
        {
            "messages": [
                *SAID,
                {"role": "system", "content": [{"type": "tool_addition", "tool": {"type": "mcp_toolset_reference"}}]},
            ]
        },
        "messages[1]",
    ),
}


@pytest.mark.parametrize("name", NAMED)
async def test_what_the_answer_does_without_is_named(server: GatewayServer, name: str) -> None:
    fields, ignored = NAMED[name]
    async with server.client() as http:
        for stream in (False, True):
            body = {"model": DEMO, "max_tokens": 20, "messages": SAID, "stream": stream, **fields}
            answer = await http.post("/v1/messages", json=body)
            assert answer.status_code == 200, answer.text
            assert answer.headers["farebox-ignored"] == ignored


async def test_a_thread_is_refused_as_anthropics_sdks_understand(server: GatewayServer) -> None:
    body = {"model": DEMO, "max_tokens": 20, "messages": SAID, "thread": {"type": "create"}, "container": "c"}
    async with server.client() as http:
        for path in ("/v1/messages", "/anthropic/v1/messages"):
            answer = await http.post(path, json=body)
            assert answer.status_code == 400
            details = answer.json()["error"]["details"]
            assert details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
        answer = await http.post("/v1/messages", json={**body, "thread": None})
        assert "details" not in answer.json()["error"]


async def test_anthropics_tool_runner_runs_a_tool(server: GatewayServer) -> None:
    """It sends `thread` first, and the whole conversation once that was refused."""
    asked: list[str] = []

    @beta_async_tool
    async def weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return "21 degrees"

    async with anthropic.AsyncAnthropic(base_url=server.url, api_key=server.secret, max_retries=0) as client:
        runner = client.beta.messages.tool_runner(
            model=DEMO, max_tokens=50, tools=[weather], messages=[{"role": "user", "content": "What is the weather?"}]
        )
        message = await runner.until_done()
    assert asked == ["Paris"]
    assert message.content[0].text == "It is sunny."  # type: ignore[union-attr]
    assert len(await server.entries()) == 2


async def test_images_are_refused_in_results_as_well(server: GatewayServer) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    async with server.client() as http:
        answer = await http.post("/v1/messages", json={"model": DEMO, "messages": turns({"content": [image]})})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (422, "messages[2].content[0].content")
    assert 'it holds one of type "image", and this model reads text only' in error["message"]


def test_what_changes_with_every_request_is_not_in_the_prompt() -> None:
    """Claude Code's first block; no prefix would ever be shared."""
    system = [{"type": "text", "text": "x-anthropic-billing-header: cch=1;"}, {"type": "text", "text": "Be brief."}]
    found = conversation(system=system, messages=[*SAID, {"role": "system", "content": system}, *SAID])
    assert [message["content"] for message in found.messages] == ["Be brief.", "Good day.", "Be brief.", "Good day."]


def test_what_other_servers_put_into_an_answer_is_passed_over() -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "another server's"},
        {"type": "redacted_thinking", "data": "?"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "a"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]},
        {"type": "mcp_tool_use", "id": "m", "name": "x", "server_name": "y", "input": {}},
        {"type": "text", "text": "So."},
    ]
    found = conversation(messages=[*SAID, {"role": "assistant", "content": content}, *SAID])
    assert found.messages[1] == {"role": "assistant", "reasoning": "hm", "content": "So."}


def test_a_budget_and_the_older_name_of_a_schema_reach_the_engine() -> None:
    found = conversation(
        thinking={"type": "enabled", "budget_tokens": 2048},
        output_format={"type": "json_schema", "schema": {"type": "object"}},
    )
    assert found.thinking_tokens_max == 2048
    assert found.response_format is not None
    assert (found.response_format.json_schema, found.response_format.place) == (
        {"type": "object"},
        "output_format.schema",
    )
    assert conversation(thinking={"type": "disabled"}, output_config={"effort": "high"}).reasoning_effort == "none"


def tool(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "input_schema": {"type": "object"}, **fields}


def system(kind: str, changed: dict[str, Any]) -> dict[str, Any]:
    return {"role": "system", "content": [{"type": kind, "tool": changed}]}


FOUND = turns({"content": [{"type": "tool_reference", "tool_name": "late"}]})
LATE = {"type": "tool_reference", "name": "late"}
BOTH = [tool("early"), tool("late", defer_loading=True)]
AT_HAND: dict[str, tuple[dict[str, Any], list[str]]] = {
    "deferred": ({"tools": BOTH}, ["early"]),
    "found by the client": ({"tools": BOTH, "messages": FOUND}, ["early", "late"]),
    "for Anthropic to find": (
        {"tools": [*BOTH, {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}]},
        ["early", "late"],
    ),
    "added": ({"tools": BOTH, "messages": [*SAID, system("tool_addition", LATE)]}, ["early", "late"]),
    "added and removed": (
        {"tools": BOTH, "messages": [*SAID, system("tool_addition", LATE), system("tool_removal", LATE)]},
        ["early"],
    ),
    "defined": (
        {"messages": [*SAID, system("tool_addition", {"type": "tool_definition", "definition": tool("new")})]},
        ["new"],
    ),
    "demanded": ({"tools": BOTH, "tool_choice": {"type": "tool", "name": "late"}}, ["early", "late"]),
    "unknown": ({"tools": BOTH, "messages": [*SAID, system("tool_removal", LATE | {"name": "x"})]}, ["early"]),
}


@pytest.mark.parametrize("name", AT_HAND)
def test_the_model_is_told_of_the_tools_that_are_at_hand(name: str) -> None:
    fields, names = AT_HAND[name]
    assert [one["function"]["name"] for one in conversation(**fields).tools] == names  # type: ignore[index, call-overload]


def test_a_client_that_found_a_tool_is_told_so_in_words() -> None:
    assert conversation(messages=FOUND).messages[2] == {
        "role": "tool",
        "tool_call_id": "t1",
        "content": "Loaded tools: late",
    }

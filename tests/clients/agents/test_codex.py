"""Codex CLI, headless, on the Responses route: commands, MCP tools as a namespace, `apply_patch` as a custom tool."""

import json
from typing import Any

from tests.clients.agents import play
from tests.clients.agents.conftest import Agent

EXEC = ("exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")


def done(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item for item in items if item["type"] == kind]


def said(events: list[dict[str, Any]]) -> str:
    text: str = done(events, "agent_message")[-1]["text"]
    return text


def ignored(agent: Agent) -> set[str]:
    """What the gateway named as left out, on the log lines of the requests."""
    lines = [json.loads(line) for line in agent.server.output.splitlines() if line.startswith('{"time"')]
    return {name for line in lines for name in line.get("ignored", ())}


def test_a_command_is_run_its_result_read_and_the_session_costs_what_codex_counts(codex: Agent) -> None:
    events = codex.events(*EXEC, play.READ_BY_CODEX)
    (command,) = done(events, "command_execution")
    assert (command["aggregated_output"], command["exit_code"]) == (f"{play.HARVEST}\n", 0)
    assert said(events) == play.ANSWER
    counted, usage = events[-1]["usage"], codex.usage()
    assert counted["input_tokens"] == usage["prompt_tokens"]
    assert counted["output_tokens"] == usage["completion_tokens"]
    assert any("web_search" in name for name in ignored(codex))


def test_a_tool_of_an_mcp_server_is_called_in_its_namespace(codex: Agent) -> None:
    events = codex.events(*EXEC, play.COUNT)
    (call,) = done(events, "mcp_tool_call")
    assert (call["server"], call["tool"], call["arguments"]) == ("barn", "count_sacks", {"year": 2025})
    assert call["result"]["content"][0]["text"] == play.COUNTED
    assert said(events) == play.BARN_ANSWER
    assert events[-1]["usage"]["reasoning_output_tokens"] > 0


def test_a_patch_is_a_custom_tool_and_the_session_goes_on(codex: Agent) -> None:
    """The second run sends the calls and reasoning of the first one back."""
    events = codex.events(*EXEC, "-m", play.KNOWN_MODEL, play.NOTE)
    assert (codex.project / "note.txt").read_text() == play.NOTE_TEXT
    assert done(events, "file_change")
    assert said(events) == play.NOTED
    assert {"tool_search", "web_search"} <= {name.partition("(")[2].rstrip(")") for name in ignored(codex)}
    again = codex.events("exec", "resume", "--last", *EXEC[1:], "-m", play.KNOWN_MODEL, play.AGAIN)
    assert said(again) == play.AGAIN_ANSWER

"""Claude Code, headless, on the Messages route: commands, an MCP server's tools, thinking that goes back."""

import json
from typing import Any

from tests.clients.agents import play
from tests.clients.agents.conftest import Agent

PRINT = ("--output-format", "stream-json", "--verbose", "-p")
ALLOWED = ("--allowedTools", "Bash(cat:*)", "mcp__barn__count_sacks")
MCP = ("--mcp-config", ".mcp.json", "--strict-mcp-config")


def blocks(events: list[dict[str, Any]], role: str, kind: str) -> list[dict[str, Any]]:
    said = [event["message"]["content"] for event in events if event["type"] == role]
    return [block for content in said if isinstance(content, list) for block in content if block["type"] == kind]


def paid(agent: Agent) -> list[dict[str, Any]]:
    """The log lines of its answers."""
    lines = [json.loads(line) for line in agent.server.output.splitlines() if line.startswith('{"time"')]
    return [line for line in lines if line.get("route") == "/v1/messages"]


def test_a_command_is_run_its_result_read_and_the_session_costs_what_claude_code_counts(claude: Agent) -> None:
    events = claude.events(*PRINT, play.READ_BY_CLAUDE, *ALLOWED)
    (call,) = blocks(events, "assistant", "tool_use")
    assert (call["name"], call["input"]["command"]) == ("Bash", f"cat {play.FILE}")
    (result,) = blocks(events, "user", "tool_result")
    assert result["content"] == play.HARVEST
    thoughts = [block["thinking"] for block in blocks(events, "assistant", "thinking")]
    assert thoughts == ["It will be in the file.", "Now I know."]
    last = events[-1]
    assert (last["subtype"], last["result"]) == ("success", play.ANSWER)
    counted, usage = last["usage"], claude.usage()
    assert counted["input_tokens"] + counted["cache_read_input_tokens"] == usage["prompt_tokens"]
    assert counted["output_tokens"] == usage["completion_tokens"]
    assert all(line["status"] == 200 for line in paid(claude))


def test_a_tool_of_an_mcp_server_is_called(claude: Agent) -> None:
    events = claude.events(*PRINT, play.COUNT_BY_CLAUDE, *MCP, *ALLOWED)
    (call,) = blocks(events, "assistant", "tool_use")
    assert (call["name"], call["input"]) == ("mcp__barn__count_sacks", {"year": 2025})
    assert play.COUNTED in json.dumps(blocks(events, "user", "tool_result"))
    assert events[-1]["result"] == play.BARN_ANSWER


def test_a_session_goes_on_with_the_thinking_and_calls_of_before(claude: Agent) -> None:
    claude.events(*PRINT, play.READ_BY_CLAUDE, *ALLOWED)
    again = claude.events(*PRINT, play.AGAIN, "--continue", *ALLOWED)
    assert again[-1]["result"] == play.AGAIN_ANSWER
    first, *_, last = paid(claude)
    assert last["prompt_tokens"] > first["prompt_tokens"]


def test_a_budget_of_thinking_that_cant_be_kept_is_named(claude: Agent) -> None:
    environment = {**claude.environment, "MAX_THINKING_TOKENS": "2048"}
    budgeted = Agent(claude.server, claude.program, claude.project, claude.home, environment)
    assert budgeted.events(*PRINT, play.READ_BY_CLAUDE, *ALLOWED)[-1]["result"] == play.ANSWER
    assert {tuple(line.get("ignored", ())) for line in paid(claude)} <= {("thinking.budget_tokens",), ()}

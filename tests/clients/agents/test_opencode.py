"""opencode, headless, on the chat route."""

from tests.clients.agents import play
from tests.clients.agents.conftest import Agent


def test_a_command_is_run_and_its_result_read(opencode: Agent) -> None:
    events = opencode.events("run", "--format", "json", play.READ_BY_OPENCODE)
    (tool,) = [event["part"] for event in events if event["type"] == "tool_use"]
    assert (tool["tool"], tool["state"]["status"]) == ("bash", "completed")
    assert tool["state"]["output"] == f"{play.HARVEST}\n"
    assert [event["part"]["text"] for event in events if event["type"] == "text"][-1] == play.ANSWER
    tokens = [event["part"]["tokens"] for event in events if event["type"] == "step_finish"]
    # The title of the session costs as well, and isn't among the steps.
    assert (
        0
        < sum(step["total"] for step in tokens)
        < sum(opencode.usage()[name] for name in ("prompt_tokens", "completion_tokens"))
    )

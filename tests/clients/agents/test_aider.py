"""aider, headless, on the chat route through LiteLLM."""

from tests.clients.agents import play
from tests.clients.agents.conftest import Agent

QUIET = ("--no-git", "--yes-always", "--no-check-update", "--analytics-disable", "--no-show-model-warnings")


def test_an_edit_is_made_its_check_read_and_the_edit_mended(aider: Agent) -> None:
    check = aider.project / "check.sh"
    check.write_text(f'#!/bin/sh\ngrep -q "{play.RIGHT}" {play.FILE} || {{ echo "{play.WRONG}"; exit 1; }}\n')
    check.chmod(0o755)
    settings = ("--model", f"openai/{play.MODEL}", "--edit-format", "diff", "--auto-test", "--test-cmd", "./check.sh")
    output = aider.run(*settings, *QUIET, "--message", play.MORE, play.FILE)
    assert play.WRONG in output
    assert (aider.project / play.FILE).read_text() == f"{play.RIGHT}\n"
    assert aider.usage()["requests"] == 2

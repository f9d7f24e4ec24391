"""What the model of the agents' tests says, and where the settings come from that the agents get: `docs/agents.md`."""

import json
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[3] / "docs" / "agents.md"
MODEL = "farebox/demo"
# Codex takes a model of this name for one that knows `apply_patch`, and sends what it sends to OpenAI.
KNOWN_MODEL = "gpt-5.5"
CARD = f"""
[[model]]
name = "{KNOWN_MODEL}"
source = "demo"
context_length = 131072
default_max_tokens = 16384
tool_call_parser = "llama3_json"
profile = "llama3-turbo"
price = {{ input = "1.25", output = "10.00" }}
"""

FILE, HARVEST = "harvest.txt", "The harvest filled 4711 sacks."
ANSWER = "It was 4711 sacks."
READ_BY_CODEX = "Read harvest.txt and say how much it was."
READ_BY_OPENCODE = "Look into harvest.txt and say how much it was."
READ_BY_CLAUDE, COUNT_BY_CLAUDE = "Open harvest.txt and say how much it was.", "Count the sacks of 2025, Claude."
COUNT, COUNTED, BARN_ANSWER = "Count the sacks of 2025 in the barn.", "In 2025 there were 4712 sacks.", "4712 sacks."
NOTE, NOTED = "Write a note of it.", "The note is written."
NOTE_TEXT = "4711 sacks, “counted”\n"
AGAIN, AGAIN_ANSWER = "And say it once more.", "4711 sacks, as I said."
MORE, TOO_FEW, RIGHT = "One sack more, please.", "The harvest filled 4712 sacks.", "The harvest filled 4713 sacks."
WRONG = "the number of sacks is wrong"


def _edit(before: str, after: str) -> dict[str, object]:
    """As aider's format `diff` has it."""
    return {"emit": f"{FILE}\n<<<<<<< SEARCH\n{before}\n=======\n{after}\n>>>>>>> REPLACE\n"}


def _call(name: str, **arguments: object) -> dict[str, object]:
    return {"call": name, "arguments": json.dumps(arguments)}


PATCH = f"*** Begin Patch\n*** Add File: note.txt\n+{NOTE_TEXT}*** End Patch\n"
# The last step of a conversation comes first: a conversation matches all that was said before as well.
SCRIPT = {
    "request": [
        {"match": WRONG, "steps": [_edit(TOO_FEW, RIGHT)]},
        {"match": MORE, "steps": [_edit(HARVEST, TOO_FEW)]},
        {"match": "You are a title generator", "steps": [{"emit": "The harvest"}]},
        {"match": AGAIN, "steps": [{"emit": AGAIN_ANSWER}]},
        {"match": "Updated the following files", "steps": [{"emit": NOTED}]},
        {"match": NOTE, "steps": [_call("apply_patch", input=PATCH)]},
        {"match": COUNTED, "steps": [{"reason": "The barn told me."}, {"emit": BARN_ANSWER}]},
        {
            "match": COUNT,
            "steps": [{"reason": "I ask the barn."}, _call("mcp__barn__count_sacks", year=2025)],
        },
        {"match": COUNT_BY_CLAUDE, "steps": [{"reason": "I ask."}, _call("mcp__barn__count_sacks", year=2025)]},
        {"match": f"tool: {HARVEST}", "steps": [{"reason": "Now I know."}, {"emit": ANSWER}]},
        {"match": HARVEST + "\n", "steps": [{"emit": ANSWER}]},
        {
            "match": READ_BY_CLAUDE,
            "steps": [
                {"reason": "It will be in the file."},
                {"emit": "I look."},
                _call("Bash", command=f"cat {FILE}", description="Reads the file"),
            ],
        },
        {"match": READ_BY_CODEX, "steps": [{"emit": "I look."}, _call("exec_command", cmd=f"cat {FILE}")]},
        {
            "match": READ_BY_OPENCODE,
            "steps": [{"emit": "I look."}, _call("bash", command=f"cat {FILE}", description="Reads the file")],
        },
    ]
}


def printed(beginning: str, url: str) -> str:
    """The block of code in `docs/agents.md` that begins so, for the gateway at `url`."""
    blocks: list[str] = re.findall(r"^```\w+\n(.*?)^```", DOCS.read_text(), re.M | re.S)
    (found,) = [block for block in blocks if block.startswith(beginning)]
    return found.replace("http://localhost:8000", url)

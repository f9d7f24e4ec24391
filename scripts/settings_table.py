"""Print the README's table of settings, or with --check say whether it is current.

python scripts/settings_table.py [--check]
"""

import sys
from pathlib import Path

from gateway.commands.settings_flags import ENVIRONMENT_ONLY, default_text
from gateway.settings import Settings, variable_of

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"


def table() -> str:
    """A Markdown table: variable, flag, default, meaning."""
    lines = ["| variable | flag | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        flag = "" if name in ENVIRONMENT_ONLY else f"`--{name.replace('_', '-')}`"
        default = default_text(name)
        lines.append(f"| `{variable_of(name)}` | {flag} | {f'`{default}`' if default else ''} | {field.description} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    current = before + BEGIN + table() + END + after
    if "--check" in sys.argv:
        sys.exit(0 if current == text else "README.md's settings are out of date: python scripts/settings_table.py")
    README.write_text(current, encoding="utf-8")


if __name__ == "__main__":
    main()

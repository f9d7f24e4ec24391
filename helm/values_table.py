"""Writes the table of values into the chart's README: `python helm/values_table.py [--check]`.

The descriptions are the comments that start with `# --`, in front of each value; needs PyYAML.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).parent / "farebox"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
COMMENT = re.compile(r"^\s*# -- (.+)$")
KEY = re.compile(r"^( *)([A-Za-z0-9]+):")


class ValuesError(Exception):
    """A value has no description."""


def rows(text: str) -> Iterator[tuple[str, object, str]]:
    """Path, default and description of each described value. Raises ValuesError for one without."""
    values = yaml.safe_load(text)
    described: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    pending = ""
    for line in text.splitlines():
        if comment := COMMENT.match(line):
            pending = comment[1]
        elif key := KEY.match(line):
            indent = len(key[1])
            stack = [(i, name) for i, name in stack if i < indent] + [(indent, key[2])]
            if pending:
                described[".".join(name for _, name in stack)] = pending
                pending = ""
    yield from _walk(values, "", described)


def _walk(values: dict[str, object], prefix: str, described: dict[str, str]) -> Iterator[tuple[str, object, str]]:
    for name, value in values.items():
        path = prefix + name
        if path in described:
            yield path, value, described[path]
        elif isinstance(value, dict) and value:
            yield from _walk(value, f"{path}.", described)
        else:
            raise ValuesError(f"The value {path} has no comment that starts with `# --`.")


def table(text: str) -> str:
    lines = ["| Value | Default | What it is |", "|---|---|---|"]
    for path, default, description in rows(text):
        shown = json.dumps(default, ensure_ascii=False).replace("|", "\\|")
        lines.append(f"| `{path}` | `{shown}` | {description} |")
    return "\n".join(lines)


def updated(readme: str, values: str) -> str:
    """The README with its table made anew."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table(values)}\n{END}{tail}"


def main() -> None:
    path = CHART / "README.md"
    before = path.read_text(encoding="utf-8")
    after = updated(before, (CHART / "values.yaml").read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--check"]:
        if before != after:
            sys.exit("helm/farebox/README.md is out of date; run: python helm/values_table.py")
    else:
        path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()

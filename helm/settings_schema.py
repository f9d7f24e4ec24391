"""Writes the gateway's settings into the chart's schema: `python helm/settings_schema.py [--check]`.

`settings` in the chart's values takes every setting but the secrets, which come from Secrets, and those that the chart
sets itself. Run it from the repository, in an environment with Farebox's dependencies.
"""

import json
import sys
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gateway.settings import Settings  # noqa: E402 - after the path

SCHEMA = ROOT / "helm" / "farebox" / "values.schema.json"
CHART_SETS = frozenset({"port", "data_dir", "models", "cards", "shutdown_seconds", "console", "console_catalog_public"})
LINE = 116


def parts(annotation: object) -> list[object]:
    """The types in `X | None`, without None."""
    return [part for part in get_args(annotation) or (annotation,) if part is not NoneType]


def is_secret(name: str) -> bool:
    return '"password"' in json.dumps(Settings.model_json_schema()["properties"][name])


def kind(name: str) -> dict[str, object]:
    """The setting's JSON schema, as far as the chart looks; the gateway checks ranges."""
    annotation = Settings.model_fields[name].annotation
    literals = (
        [annotation]
        if get_origin(annotation) is Literal
        else [part for part in parts(annotation) if get_origin(part) is Literal]
    )
    if literals:
        return {"enum": list(get_args(literals[0]))}
    for python, json_type in ((bool, "boolean"), (int, "integer"), (float, "number")):
        if annotation is python or python in parts(annotation):
            return {"type": json_type}
    return {"type": "object"} if get_origin(annotation) is dict else {"type": "string"}


def settings_schema() -> dict[str, object]:
    names = [name for name in Settings.model_fields if name not in CHART_SETS and not is_secret(name)]
    return {"type": "object", "additionalProperties": False, "properties": {name: kind(name) for name in names}}


def dump(value: object, indent: int = 0) -> str:
    """JSON with short things on one line."""
    flat = json.dumps(value)
    if len(flat) + indent <= LINE or not isinstance(value, dict | list):
        return flat
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        lines = [f"{pad}{json.dumps(key)}: {dump(part, indent + 2)}" for key, part in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + dump(part, indent + 2) for part in value) + "\n" + " " * indent + "]"


def updated(text: str) -> str:
    schema = json.loads(text)
    schema["properties"]["settings"] = settings_schema()
    return dump(schema) + "\n"


def main() -> None:
    before = SCHEMA.read_text(encoding="utf-8")
    after = updated(before)
    if sys.argv[1:] == ["--check"]:
        if before != after:
            sys.exit("helm/farebox/values.schema.json is out of date; run: python helm/settings_schema.py")
    else:
        SCHEMA.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()

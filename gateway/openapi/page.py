"""The docs page: the OpenAPI document as one HTML file that needs no network, no script and no framework."""

import json
import re
from collections.abc import Iterator
from html import escape
from http import HTTPStatus
from importlib import resources
from typing import Any

from gateway.openapi.common import ERRORS, Fields
from gateway.protocol.operation import EVENTS

METHODS = ("get", "post", "put", "patch", "delete")
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
LENGTHS = {"minLength": "at least {} characters", "maxLength": "at most {} characters"}
COUNTS = {"minItems": "at least {} items", "maxItems": "at most {} items", "pattern": "matches {}"}


def render(document: Fields) -> str:
    """The whole page. Paths that do the same are shown once, with their other names."""
    style = resources.files("gateway").joinpath("openapi/page.css").read_text(encoding="utf-8")
    info = document["info"]
    groups = [(tag, list(_operations(document, tag["name"]))) for tag in document["tags"]]
    contents = "".join(_contents(tag, operations) for tag, operations in groups)
    sections = "".join(_section(tag, operations) for tag, operations in groups)
    schemas = "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    title, version = escape(info["title"]), escape(info["version"])
    itself = escape(document["servers"][0]["url"].rstrip("/") + "/openapi.json")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} API</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head><body>'
        f'<nav><b>{title} {version}</b>{contents}<h4><a href="#errors">Errors</a></h4>'
        f'<h4><a href="#schemas">Schemas</a></h4><p><a href="{itself}">openapi.json</a></p></nav>'
        f"<main><h1>{title} API</h1>{_text(info['description'])}{sections}"
        f'{_errors()}<h2 id="schemas">Schemas</h2>{schemas}</main></body></html>'
    )


def _operations(document: Fields, tag: str) -> Iterator[tuple[str, str, Fields, list[str]]]:
    """Method, path, operation, and the other paths that do the same."""
    shown: dict[str, tuple[str, str, Fields, list[str]]] = {}
    for path, item in document["paths"].items():
        for method in METHODS:
            operation = item.get(method)
            if operation is None or operation["tags"] != [tag]:
                continue
            same = json.dumps([method, {**operation, "operationId": ""}], sort_keys=True)
            if same in shown:
                shown[same][3].append(path)
            else:
                shown[same] = (method, path, operation, [])
    yield from shown.values()


def _contents(tag: Fields, operations: list[tuple[str, str, Fields, list[str]]]) -> str:
    links = "".join(
        f'<li><a href="#{operation["operationId"]}"><i class="{method}">{method.upper()}</i> {escape(path)}</a></li>'
        for method, path, operation, _ in operations
    )
    return f"<h4>{escape(tag['name'])}</h4><ul>{links}</ul>"


def _section(tag: Fields, operations: list[tuple[str, str, Fields, list[str]]]) -> str:
    articles = "".join(_article(*operation) for operation in operations)
    return f"<h2>{escape(tag['name'])}</h2>{_text(tag['description'])}{articles}"


def _article(method: str, path: str, operation: Fields, others: list[str]) -> str:
    also = f"<p class=also>also {', '.join(f'<code>{escape(other)}</code>' for other in others)}</p>" if others else ""
    parts = [_text(operation.get("description", "")), also]
    if "security" in operation:
        parts.append("<p class=also>no key is needed</p>")
    if parameters := operation.get("parameters"):
        rows = "".join(
            _row(one["name"], one["schema"], one.get("required", False), one.get("description", ""), one["in"])
            for one in parameters
        )
        parts.append(f"<h4>Parameters</h4><table>{rows}</table>")
    if body := operation.get("requestBody"):
        parts.append(f"<h4>Body</h4>{_content(body['content'])}")
    parts.append(f"<h4>Answers</h4>{_answers(operation['responses'])}")
    return (
        f'<article id="{operation["operationId"]}"><h3><i class="{method}">{method.upper()}</i> '
        f"<code>{escape(path)}</code> <small>{escape(operation['summary'])}</small></h3>{''.join(parts)}</article>"
    )


def _answers(responses: Fields) -> str:
    """A row for each status with an answer of its own, and one for all errors."""
    rows, errors = [], []
    for status, answer in responses.items():
        if "$ref" in answer:
            name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", answer["$ref"].rpartition("/")[2])
            errors.append(f'<a href="#error-{status}" title="{escape(name)}">{status}</a>')
        else:
            rows.append(f"<tr><td><b>{status}</b></td><td>{_content(answer.get('content', {}))}</td></tr>")
    return f"<table>{''.join(rows)}<tr><td>errors</td><td>{' '.join(errors)}</td></tr></table>"


def _content(content: Fields) -> str:
    lines = []
    for media, shape in content.items():
        data = shape["schema"].get("properties", {}).get("data") if media == EVENTS else None
        said = f"each event's data is {_type(data)}" if data else _type(shape["schema"])
        lines.append(f"<p><code>{escape(media)}</code> {said}</p>")
    return "".join(lines)


def _errors() -> str:
    rows = "".join(
        f'<tr id="error-{status}"><td><b>{status}</b> {HTTPStatus(status).phrase}</td><td>{_inline(text)}</td></tr>'
        for status, text in ERRORS.items()
    )
    return (
        f'<h2 id="errors">Errors</h2><p>All have the shape <a href="#schema-Error">Error</a>.</p><table>{rows}</table>'
    )


def _schema(name: str, schema: Fields) -> str:
    required = schema.get("required", ())
    rows = "".join(
        _row(field, one, field in required, one.get("description", ""))
        for field, one in schema.get("properties", {}).items()
    )
    table = f"<table>{rows}</table>" if rows else f"<p>{_type(schema)}</p>"
    return (
        f'<details id="schema-{escape(name)}" open><summary><b>{escape(name)}</b></summary>'
        f"{_text(schema.get('description', ''))}{table}</details>"
    )


def _row(name: str, schema: Fields, required: bool, description: str, place: str = "") -> str:
    marks = f"{' <small>required</small>' if required else ''}{f' <small>{place}</small>' if place else ''}"
    default = f" <small>default {escape(json.dumps(schema['default']))}</small>" if "default" in schema else ""
    words = f"<br>{_inline(description)}" if description else ""
    return f"<tr><td><code>{escape(name)}</code>{marks}</td><td>{_type(schema)}{default}{words}</td></tr>"


def _type(schema: Fields) -> str:
    """A schema in a line."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if "contentSchema" in schema:
        return _type(schema["contentSchema"])
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(_type(option) for option in schema[union] if option != {"type": "null"})
    kinds = schema.get("type", "any value")
    kind = " or ".join(one for one in kinds if one != "null") if isinstance(kinds, list) else kinds
    if kind == "array" and "items" in schema:
        kind = f"list of {_type(schema['items'])}"
    limits = [
        text.format(escape(str(schema[name])))
        for table in (BOUNDS, LENGTHS, COUNTS)
        for name, text in table.items()
        if name in schema
    ]
    return kind + (f" <small>{', '.join(limits)}</small>" if limits else "")


def _text(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.strip().split("\n\n") if part.strip())


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def to_json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

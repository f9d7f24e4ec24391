"""Whether no value fits two of several schemas, and whether a schema has a value that ends."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from engine.grammar.places import of_type

_NUMBERS = {"integer", "number"}


def are_disjoint(branches: Sequence[object]) -> bool:
    """Proved by types, by listed values, or by a required property with listed values; else False."""
    return all(_apart(one, other) for one, other in combinations(branches, 2))


def _apart(one: object, other: object) -> bool:
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    values, others = _values(one), _values(other)
    if values is not None and others is not None:
        return not {_key(value) for value in values} & {_key(value) for value in others}
    if values is not None or others is not None:
        listed, free = (values, other) if values is not None else (others, one)
        kinds = _kinds(free)
        return kinds is not None and not any(of_type(value, kind) for value in listed or () for kind in kinds)
    kinds, other_kinds = _kinds(one), _kinds(other)
    if kinds is None or other_kinds is None:
        return False
    if not kinds & other_kinds and not (kinds & _NUMBERS and other_kinds & _NUMBERS):
        return True
    return kinds == other_kinds == {"object"} and any(
        _apart(one["properties"][name], other["properties"][name])
        for name in _required(one) & _required(other)
        if _values(one["properties"][name]) is not None and _values(other["properties"][name]) is not None
    )


def _required(schema: Mapping[str, Any]) -> set[str]:
    names, properties = schema.get("required"), schema.get("properties")
    if not isinstance(names, list) or not isinstance(properties, Mapping):
        return set()
    return {name for name in names if isinstance(name, str) and name in properties}


def _values(schema: object) -> list[object] | None:
    if not isinstance(schema, Mapping) or "$ref" in schema:
        return None
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def _kinds(schema: Mapping[str, Any]) -> set[str] | None:
    kinds = schema.get("type")
    if isinstance(kinds, str):
        return {kinds}
    return {kind for kind in kinds if isinstance(kind, str)} if isinstance(kinds, list) else None


def _key(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


def never_ends(schema: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether every value of a schema that `schemas` wrote would have to hold itself."""
    ending: set[str] = set()
    while found := {name for name in definitions.keys() - ending if _ends(definitions[name], ending)}:
        ending |= found
    return not _ends(schema, ending)


def _ends(schema: Mapping[str, Any], ending: set[str]) -> bool:
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2] in ending
    if "anyOf" in schema:
        return any(_ends(branch, ending) for branch in schema["anyOf"])
    required = [schema["properties"][name] for name in schema.get("required", ())]
    if schema.get("minItems", 0) > 0:
        required += [*schema.get("prefixItems", ()), schema.get("items") or {}][: schema["minItems"]]
    return all(_ends(part, ending) for part in required)

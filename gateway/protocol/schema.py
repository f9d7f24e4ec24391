"""JSON Schema of request bodies: what is valid there is accepted, and what isn't is refused.

Pydantic writes most of it from the fields that do the checking. Added here is what it can't know: that null means
absent, and rules about two fields. JSON Schema can't say that two numbers must be equal or that a name must be in a
list sent beside it; such rules are in the descriptions only.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

JSONSchema = dict[str, Any]

SENT: JSONSchema = {"not": {"type": "null"}}
NULL: JSONSchema = {"type": "null"}
# What plainly means "off", each in words that generators of clients know.
NOTHING: list[JSONSchema] = [
    {"type": "string", "maxLength": 0},
    {"type": "array", "items": {}, "maxItems": 0},
    {"type": "object", "maxProperties": 0},
]
ASKED: JSONSchema = {"not": {"enum": [None, "", [], {}]}}  # for a field where an empty value means absent
DEFINITIONS = "#/$defs/{model}"


def implies(condition: Mapping[str, JSONSchema], consequence: Mapping[str, JSONSchema]) -> JSONSchema:
    """Where every field of the condition is there and matches, so must every field of the consequence."""
    return {"if": _fields(condition), "then": _fields(consequence)}


def forbids(condition: Mapping[str, JSONSchema], forbidden: Mapping[str, JSONSchema]) -> JSONSchema:
    """Where every field of the condition is there and matches, none of the others does."""
    refused = {"properties": {name: {"not": schema} for name, schema in forbidden.items()}}
    return {"if": _fields(condition), "then": refused}


def one_of_fields(schema: JSONSchema, *names: str) -> JSONSchema:
    """At least one of these fields is there and matches."""
    return {"anyOf": [_fields({name: schema}) for name in names]}


def _fields(schemas: Mapping[str, JSONSchema]) -> JSONSchema:
    return {"properties": dict(schemas), "required": list(schemas)}


def describe_strictness(schema: JSONSchema) -> None:
    """An object that takes no unknown field, unless it is null."""
    schema["additionalProperties"] = NULL


def describe_nulls(schema: JSONSchema, empties: Collection[str] = ()) -> None:
    """An object whose nulls mean absent: every optional field may be null, and those of `empties` may be empty."""
    required = schema.get("required", ())
    properties = schema.get("properties", {})
    schema["properties"] = {
        name: _not_null(field) if name in required else nullable(_or_empty(field) if name in empties else field)
        for name, field in properties.items()
    }


def _or_empty(schema: JSONSchema) -> JSONSchema:
    outside: JSONSchema = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    options = schema.get("anyOf") or [{key: value for key, value in schema.items() if key not in outside}]
    return {**outside, "anyOf": [*options, *NOTHING]}


def nullable(schema: JSONSchema) -> JSONSchema:
    """The same or null."""
    if not schema.keys() & {"type", "anyOf", "$ref", "const", "enum"}:
        return schema
    options = [option for option in schema.get("anyOf", ()) if option != NULL]
    outside: JSONSchema = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    alone = options[0] if len(options) == 1 else {key: value for key, value in schema.items() if key not in outside}
    if len(options) < 2 and isinstance(alone.get("type"), str) and not alone.keys() & {"const", "enum"}:
        return {**outside, **alone, "type": [alone["type"], "null"]}
    return {**outside, "anyOf": [*(options or [alone]), NULL]}


def _not_null(schema: JSONSchema) -> JSONSchema:
    if NULL in schema.get("anyOf", ()):
        return {**schema, "anyOf": [option for option in schema["anyOf"] if option != NULL]}
    return schema


class _Generator(GenerateJsonSchema):
    """Without what says nothing: a title that repeats the field's name, and a default of null.

    Nor a default that is an object: it means the same as leaving the field out, and generators of clients that meet
    one beside a reference leave out the whole operation.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Keys by `propertyNames`: generators of clients see nothing in `patternProperties`."""
        json_schema = super().dict_schema(schema)
        if patterns := json_schema.pop("patternProperties", None):
            [(pattern, values)] = patterns.items()
            json_schema |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
        return json_schema

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        json_schema = super().default_schema(schema)
        if isinstance(json_schema.get("default"), dict | None):
            json_schema.pop("default", None)
        return json_schema


def schema_of(model: type[Any], ref_template: str = DEFINITIONS) -> JSONSchema:
    """The schema of a body, or of an answer's TypedDict, with its parts under `$defs`."""
    return TypeAdapter(model).json_schema(ref_template=ref_template, schema_generator=_Generator)

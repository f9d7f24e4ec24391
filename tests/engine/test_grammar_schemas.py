"""JSON Schemas: whatever a grammar lets through fits the client's schema, and what can't be kept is refused by name."""

import json
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.grammar.errors import Refused
from engine.grammar.formats import FORMATS
from engine.grammar.schemas import held
from tests.engine.grammar_walks import accepts, of_schema, walks

PLACE = "response_format.json_schema.schema"
ABCD: dict[str, Any] = {name: {"type": "integer"} for name in "abcd"}
PAIR: list[dict[str, Any]] = [{"type": "integer"}, {"type": "boolean"}]


def branch(name: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"kind": {"const": name}, name: {"type": "null"}}, "required": ["kind"]}


KEPT: list[dict[str, Any]] = [
    {},
    {"type": "string"},
    {"type": "string", "maxLength": 4},
    {"type": "string", "minLength": 2, "maxLength": 200},
    {"type": "string", "pattern": "^[^a-c]{2}"},
    {"type": "string", "format": "password", "maxLength": 3},
    {"minLength": 3},
    {"minLength": 3, "minimum": 7},
    {"type": "integer", "minimum": -5, "maximum": 1234},
    {"type": "integer", "exclusiveMinimum": 0.5, "exclusiveMaximum": 3},
    {"type": "integer", "multipleOf": 7},
    {"type": "integer", "minimum": 3, "maximum": 90, "multipleOf": 7},
    {"type": "number", "minimum": 0.25, "exclusiveMaximum": 7},
    {"type": "number", "exclusiveMinimum": -1.5},
    {"type": "array"},
    {"type": "array", "minItems": 2},
    {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
    {"type": "array", "prefixItems": PAIR},
    {"type": "array", "prefixItems": PAIR, "items": False, "minItems": 2},
    {"type": "array", "prefixItems": PAIR, "maxItems": 1},
    {"type": "array", "prefixItems": PAIR, "items": {"type": "null"}, "minItems": 3, "maxItems": 4},
    {"type": "array", "maxItems": 0},
    {"type": "array", "uniqueItems": True, "maxItems": 1},
    {"type": "object"},
    {"type": "object", "required": ["a"]},
    {"type": "object", "properties": {}},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["b"]},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True},
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "additionalProperties": {"type": "null"},
        "required": ["z"],
    },
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 2},
    {"type": "object", "properties": ABCD, "minProperties": 2, "maxProperties": 3, "required": ["c"]},
    {"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "minProperties": 1},
    {"type": "object", "propertyNames": {"enum": ["a", 'b"c']}, "additionalProperties": {"type": "integer"}},
    {"type": "object", "propertyNames": {"pattern": "^[a-c]+$"}},
    {"type": "object", "propertyNames": {"maxLength": 2}, "additionalProperties": False},
    {"type": "object", "propertyNames": {"maxLength": 3}, "additionalProperties": {"type": "null"}},
    {"type": "object", "properties": {'a"b': {"type": "null"}, "é": {}, "": {"type": "null"}}, "required": ["", "é"]},
    {"enum": ["a", 1, 1.5, None, True, {"k": [1, "x\ny"]}, '"é\\']},
    {"enum": [1, "1", 2.0], "type": "integer"},
    {"const": "a", "enum": ["a"], "type": "string"},
    {"const": 0.1},
    {"const": 1e22},
    {"const": "\u2028\x7f/"},
    {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}], "title": "Either"},
    {"anyOf": [{"minimum": 3}, {"maximum": -3}], "type": "integer"},
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    {"oneOf": [{"const": 1}, {"enum": [2, "3"]}, {"type": "null"}]},
    {
        "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
        "discriminator": {"propertyName": "kind"},
        "$defs": {"a": branch("a"), "b": branch("b")},
    },
    {"allOf": [{"type": "integer"}], "description": "One"},
    {"type": ["integer", "null", "array"], "minimum": 3, "items": {"type": "boolean"}},
    {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"v": {"type": "integer"}, "n": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                "required": ["v"],
            }
        },
    },
    {"type": "object", "properties": {"n": {"$ref": "#"}, "m": {"$ref": "#/properties/n"}}},
    *({"type": "string", "format": name} for name in FORMATS),
]

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unique items": ({"properties": {"tags": {"type": "array", "uniqueItems": True}}}, ".properties.tags.uniqueItems"),
    "contains": ({"type": "array", "contains": {}}, ".contains"),
    "two patterns of names": ({"type": "object", "patternProperties": {"^x": {}, "^b": {}}}, ".patternProperties"),
    "a pattern beside names": ({"properties": {"k": {}}, "patternProperties": {"^x": {}}}, ".patternProperties"),
    "names beside a pattern of them": ({"properties": {"k": {}}, "propertyNames": {"maxLength": 3}}, ".propertyNames"),
    "many free names": ({"type": "object", "minProperties": 2}, ".minProperties"),
    "pattern and length": ({"type": "string", "pattern": "^a+$", "maxLength": 5}, ".maxLength"),
    "pattern and format": ({"type": "string", "pattern": "^a+$", "format": "date"}, ".pattern"),
    "an unknown format": ({"type": "string", "format": "idn-email"}, ".format"),
    "a lookahead": ({"type": "string", "pattern": "^(?!a).*$"}, ".pattern"),
    "allOf": ({"allOf": [{"type": "object"}, {"required": ["a"]}]}, ".allOf"),
    "if": ({"if": {"type": "string"}, "then": {"minLength": 3}}, ".if"),
    "not": ({"not": {"type": "string"}}, ".not"),
    "an overlapping oneOf": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ".oneOf"),
    "what stands beside anyOf": ({"anyOf": [{"type": "string"}], "minLength": 3}, ".minLength"),
    "what stands beside a reference": ({"$ref": "#/$defs/s", "maxLength": 3, "$defs": {"s": {}}}, ".maxLength"),
    "what stands beside an enum": ({"enum": ["a", "bb"], "maxLength": 1}, ".maxLength"),
    "dependent names": ({"type": "object", "dependentRequired": {"a": ["b"]}}, ".dependentRequired"),
    "a multiple of a number": ({"type": "number", "multipleOf": 0.1}, ".multipleOf"),
    "a multiple with one bound": ({"type": "integer", "multipleOf": 3, "minimum": 0}, ".multipleOf"),
    "an integer of 70 bits": ({"const": 2**70}, ".const"),
    "a bound of 70 bits": ({"type": "integer", "maximum": 2**70}, ".maximum"),
    "a false property": ({"properties": {"a": False}}, ".properties.a"),
    "a tuple of draft 7": ({"type": "array", "items": [{"type": "string"}]}, ".items"),
    "a reference elsewhere": ({"$ref": "https://example.com/schema"}, ".$ref"),
    "a reference by time": ({"$dynamicRef": "#node"}, ".$dynamicRef"),
    "a place with a dot": ({"properties": {"a.b": {"not": {}}}}, ".properties.'a.b'.not"),
    "in a branch": ({"anyOf": [{}, {"not": {}}]}, ".anyOf[1].not"),
    "in a definition": ({"$ref": "#/$defs/x", "$defs": {"x": {"not": {}}}}, ".$defs.x.not"),
}  # fmt: skip
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "a negative length": ({"type": "string", "minLength": -1}, ".minLength"),
    "lengths the wrong way round": ({"type": "string", "minLength": 3, "maxLength": 2}, ".minLength"),
    "an unknown type": ({"type": "no such type"}, ".type"),
    "no pattern": ({"type": "string", "pattern": "(unclosed"}, ".pattern"),
    "an empty enum": ({"enum": []}, ".enum"),
    "an empty anyOf": ({"anyOf": []}, ".anyOf"),
    "a required property that isn't allowed": (
        {"properties": {}, "required": ["a"], "additionalProperties": False},
        ".required",
    ),
    "a reference to nowhere": ({"$ref": "#/nowhere"}, ""),
    "a reference to itself": ({"$ref": "#"}, ""),
    "a circle of references": ({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}, ""),
    "an object that must hold itself": ({"properties": {"n": {"$ref": "#"}}, "required": ["n"]}, ""),
    "a list that must hold itself": ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, ""),
    "a property that is a number": ({"properties": {"a": 3}}, ".properties.a"),
    "required that is true": ({"properties": {"a": {"required": True}}}, ".properties.a.required"),
}


def fits(schema: Mapping[str, Any], value: object) -> bool:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return bool(jsonschema.Draft202012Validator(schema, format_checker=checker).is_valid(value))


@pytest.mark.parametrize("schema", KEPT, ids=json.dumps)
def test_every_answer_to_a_kept_schema_fits_it(schema: dict[str, Any]) -> None:
    texts = list(walks(of_schema(held(schema, PLACE).schema), 40, 1))
    assert len(texts) > 5
    for text in texts:
        assert fits(schema, json.loads(text)), text


@pytest.mark.parametrize(("schema", "where"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_kept_is_refused_with_its_place(schema: dict[str, Any], where: str) -> None:
    with pytest.raises(Refused) as caught:
        held(schema, PLACE)
    assert caught.value.place == PLACE + where
    assert f"`{PLACE}{where}`" in str(caught.value)
    assert caught.value.unsupported


@pytest.mark.parametrize(("schema", "where"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_schema_is_refused_with_its_place(schema: dict[str, Any], where: str) -> None:
    with pytest.raises(Refused) as caught:
        held(schema, PLACE)
    assert caught.value.place == PLACE + where
    assert not caught.value.unsupported


@pytest.mark.parametrize("schema", [schema for schema, _ in [*REFUSED.values(), *BROKEN.values()]], ids=json.dumps)
def test_loosely_everything_is_a_schema_and_says_what_it_leaves_out(schema: dict[str, Any]) -> None:
    found = held(schema, PLACE, loose=True)
    assert found.left_out
    assert list(walks(of_schema(found.schema), 5, 1))


def test_loosely_the_rest_is_kept() -> None:
    properties = {"tags": {"type": "array", "uniqueItems": True, "maxItems": 2}, "n": {"type": "integer", "maximum": 9}}
    found = held({"type": "object", "properties": properties, "required": ["n"]}, "tools[0]", loose=True)
    assert found.left_out == ("tools[0].properties.tags.uniqueItems",)
    grammar = of_schema(found.schema)
    assert accepts(grammar, '{"tags": [1, 1], "n": 9}')
    assert not accepts(grammar, '{"n": 10}')


def test_a_schema_as_deep_as_a_well_is_refused_even_loosely() -> None:
    schema: dict[str, Any] = {}
    for _ in range(40):
        schema = {"type": "array", "items": schema}
    for loose in (False, True):
        with pytest.raises(Refused, match="32 levels"):
            held(schema, PLACE, loose=loose)


def test_what_is_kept_is_not_narrower_than_it_must_be() -> None:
    """Further properties where they are allowed, and values at the bounds."""
    open_object = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True}
    assert accepts(of_schema(held(open_object, PLACE).schema), '{"a": 1, "other": [true]}')
    assert accepts(of_schema(held({"type": "object"}, PLACE).schema), '{"any": {"thing": 1}}')
    bounded = of_schema(held({"type": "integer", "minimum": -5, "exclusiveMaximum": 7}, PLACE).schema)
    assert [number for number in range(-8, 10) if accepts(bounded, str(number))] == list(range(-5, 7))
    lengths = of_schema(held({"type": "string", "minLength": 1, "maxLength": 3}, PLACE).schema)
    assert [text for text in ("", "a", "äöü", "abcd") if accepts(lengths, json.dumps(text, ensure_ascii=False))] == [
        "a",
        "äöü",
    ]


LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={
            "minLength": st.integers(0, 4),
            "maxLength": st.integers(4, 9),
            "pattern": st.sampled_from(["^a+$", "[0-9]{2}", "^x", "(a|b)$"]),
            "format": st.sampled_from(["date", "uuid", "password", "iri"]),
        },
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={
            "minimum": st.integers(-20, 5),
            "maximum": st.integers(5, 500),
            "exclusiveMinimum": st.floats(-30, 4, width=16),
            "multipleOf": st.sampled_from([1, 2, 5]),
        },
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["boolean", "null"])}),
    st.fixed_dictionaries({"enum": st.lists(st.sampled_from([1, 2.5, "a", None, True, [1], {"a": 1}]), min_size=1)}),
    st.just({}),
)


def larger(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(["a", "b", "c d", "é"])
    further = st.one_of(st.booleans(), parts)
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object")},
            optional={
                "properties": st.dictionaries(names, parts, max_size=3),
                "required": st.lists(names, max_size=2),
                "additionalProperties": further,
                "patternProperties": st.dictionaries(st.sampled_from(["^x", "y$"]), parts, max_size=2),
                "propertyNames": st.sampled_from([{"maxLength": 2}, {"enum": ["a", "b"]}, {"pattern": "^[ab]$"}]),
                "minProperties": st.integers(0, 2),
                "maxProperties": st.integers(1, 4),
                "dependentRequired": st.just({"a": ["b"]}),
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("array")},
            optional={
                "items": further,
                "prefixItems": st.lists(parts, min_size=1, max_size=2),
                "minItems": st.integers(0, 2),
                "maxItems": st.integers(1, 4),
                "uniqueItems": st.booleans(),
                "contains": parts,
            },
        ),
        st.fixed_dictionaries(
            {},
            optional={
                "anyOf": st.lists(parts, min_size=1, max_size=3),
                "oneOf": st.lists(parts, min_size=1, max_size=2),
                "allOf": st.lists(parts, min_size=1, max_size=2),
                "not": parts,
                "type": st.sampled_from(["string", "object", ["integer", "null"]]),
            },
        ),
    )


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.recursive(LEAVES, larger, max_leaves=6))
def test_every_answer_to_any_schema_that_is_accepted_fits_it(schema: dict[str, Any]) -> None:
    try:
        kept = held(schema, PLACE)
    except Refused:
        kept = None
    if kept is not None:
        try:
            grammar = of_schema(kept.schema)
        except RuntimeError:  # a bound that leaves nothing: the trial refuses it
            return
        for text in walks(grammar, 4, 1):
            assert fits(schema, json.loads(text)), text
    loose = held(schema, PLACE, loose=True)
    assert (kept is not None) == (not loose.left_out)

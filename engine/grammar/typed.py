"""The keywords of each type, as they are kept: a handler for each, and what they refuse."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.grammar.errors import Refused
from engine.grammar.formats import FORMATS, PATTERNS, REMARKS
from engine.grammar.patterns import any_text, within_json
from engine.grammar.places import is_count, is_number, under

Schema = dict[str, Any]

BY_TYPE: dict[str, tuple[str, ...]] = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "boolean": (),
    "null": (),
    "array": (
        *("items", "prefixItems", "additionalItems", "minItems", "maxItems"),
        *("uniqueItems", "contains", "minContains", "maxContains"),
    ),
    "object": (
        *("properties", "required", "additionalProperties", "patternProperties", "propertyNames"),
        *("minProperties", "maxProperties", "unevaluatedProperties"),
    ),
}
TYPES = tuple(BY_TYPE)
KEYWORDS = frozenset({"type"}.union(*BY_TYPE.values()))

# Beyond this the converter ignores `multipleOf`, or lists every multiple.
_MULTIPLE_MAX = 1024
_MULTIPLES_MAX = 10_000
_INT64 = 2**63


class Walk(Protocol):
    """What a handler needs of the walk."""

    def schema(self, schema: object, place: str) -> Schema: ...

    def refuse(self, place: str, name: str, how: str = ..., instead: str = ...) -> None: ...

    @property
    def loose(self) -> bool: ...

    @property
    def left_out(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Written:
    """A schema of one type, and whether equal ones should be one definition."""

    schema: Schema
    shared: bool = False


def held_of_type(kind: str, schema: Schema, place: str, walk: Walk) -> Written:
    """The schema's keywords of this type, as they are kept. Raises Refused."""
    return _HANDLERS[kind](schema, place, walk)


def _plain(kind: str) -> Callable[[Schema, str, Walk], Written]:
    return lambda schema, place, walk: Written({"type": kind})


def _string(schema: Schema, place: str, walk: Walk) -> Written:
    least, most = _counts(schema, "minLength", "maxLength", place)
    pattern = _pattern(schema, place, walk)
    format_ = _format(schema, place, walk)
    if format_ is not None and pattern is not None:
        walk.refuse(place, "pattern", "beside `format` it")
        pattern = None
    if pattern is not None or format_ is not None:
        for name, there in (("minLength", least), ("maxLength", most is not None)):
            if there:
                walk.refuse(place, name, f"beside `{'pattern' if pattern is not None else 'format'}` it")
        if format_ in PATTERNS:
            pattern = within_json(PATTERNS[format_], place)
        kept = {"pattern": pattern} if pattern is not None else {"format": format_}
        return Written({"type": "string", **kept}, shared=True)
    if not least and most is None:
        return Written({"type": "string"})
    # The converter's own strings of a length may hold control characters, which no JSON may.
    return Written({"type": "string", "pattern": any_text(least, most)}, shared=True)


def _pattern(schema: Schema, place: str, walk: Walk) -> str | None:
    if "pattern" not in schema:
        return None
    where = under(place, "pattern")
    if not isinstance(schema["pattern"], str):
        raise Refused(f"`{where}` must be a text.", where, unsupported=False)
    try:
        return within_json(schema["pattern"], where)
    except Refused:
        if not walk.loose:
            raise
        walk.left_out.append(where)
        return None


def _format(schema: Schema, place: str, walk: Walk) -> str | None:
    found = schema.get("format")
    if found is None or found in REMARKS:
        return None
    if found not in FORMATS:
        walk.refuse(place, "format", f"a format other than {', '.join(FORMATS)}")
        return None
    return str(found)


def _integer(schema: Schema, place: str, walk: Walk) -> Written:
    written = {"type": "integer", **_bounds(schema, place, math.ceil, math.floor)}
    multiple = _multiple(schema, place)
    if multiple in (None, 1):
        return Written(written)
    low, high = written.get("minimum"), written.get("maximum")
    listed = low is not None and high is not None and high - low < _MULTIPLES_MAX
    if multiple != int(multiple) or multiple > _MULTIPLE_MAX or not (listed or (low is None and high is None)):
        walk.refuse(place, "multipleOf", "this number with these bounds")
        return Written(written)
    return Written({**written, "multipleOf": int(multiple)})


def _number(schema: Schema, place: str, walk: Walk) -> Written:
    if _multiple(schema, place) is not None:
        walk.refuse(place, "multipleOf", "for `number` it")
    return Written({"type": "number", **_bounds(schema, place)})


def _multiple(schema: Schema, place: str) -> Any:
    multiple = schema.get("multipleOf")
    if multiple is None or (is_number(multiple) and math.isfinite(multiple) and multiple > 0):
        return multiple
    where = under(place, "multipleOf")
    raise Refused(f"`{where}` must be a number above 0.", where, unsupported=False)


def _bounds(
    schema: Schema, place: str, up: Callable[[float], int] | None = None, down: Callable[[float], int] | None = None
) -> Schema:
    """The bounds; with `up` and `down` in integers, inclusive."""
    written: Schema = {}
    for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        value = schema.get(name)
        if value is None:
            continue
        where = under(place, name)
        if not is_number(value) or not math.isfinite(value):
            raise Refused(f"`{where}` must be a number.", where, unsupported=False)
        if not -_INT64 <= value < _INT64:
            raise Refused(f"`{where}` can't be kept: it has more than 64 bits.", where)
        if up is None or down is None:
            written[name] = value
        elif name.endswith("inimum"):
            bound = down(value) + 1 if name.startswith("ex") else up(value)
            written["minimum"] = max(bound, written.get("minimum", bound))
        else:
            bound = up(value) - 1 if name.startswith("ex") else down(value)
            written["maximum"] = min(bound, written.get("maximum", bound))
    return written


def _array(schema: Schema, place: str, walk: Walk) -> Written:
    least, most = _counts(schema, "minItems", "maxItems", place)
    if schema.get("uniqueItems") and (most is None or most > 1):
        walk.refuse(place, "uniqueItems")
    for name in ("contains", "minContains", "maxContains"):
        if name in schema:
            walk.refuse(place, name)
    items = schema.get("items", True)
    if isinstance(items, list):
        walk.refuse(place, "items", "a list of schemas", "`prefixItems` can be kept.")
        items = True
    prefix = schema.get("prefixItems", [])
    if not isinstance(prefix, list):
        where = under(place, "prefixItems")
        raise Refused(f"`{where}` must be a list of schemas.", where, unsupported=False)
    written: Schema = {"type": "array"}
    if prefix:
        firsts = prefix if most is None else prefix[:most]
        where = under(place, "prefixItems")
        written["prefixItems"] = [walk.schema(item, f"{where}[{index}]") for index, item in enumerate(firsts)]
    if items is False or (most is not None and most <= len(prefix)):
        most = len(prefix) if most is None else min(most, len(prefix))
        written["items"] = False
    else:
        written["items"] = walk.schema(items, under(place, "items"))
    if least > (least if most is None else most):
        where = under(place, "minItems")
        raise Refused(f"`{where}` is more than there may be.", where, unsupported=False)
    return Written({**written, **_given({"minItems": least or None, "maxItems": most})})


def _object(schema: Schema, place: str, walk: Walk) -> Written:
    properties = _parts(schema, "properties", place)
    patterns = _parts(schema, "patternProperties", place)
    required = _required(schema, place)
    least, most = _counts(schema, "minProperties", "maxProperties", place)
    further = schema.get("additionalProperties", schema.get("unevaluatedProperties"))
    names = schema.get("propertyNames", True)
    if patterns and (properties or required or len(patterns) > 1 or further not in (None, False)):
        walk.refuse(place, "patternProperties", "with several patterns, or beside other properties, it")
        patterns = {}
    if names is not True and (properties or patterns or required):
        walk.refuse(place, "propertyNames", "beside other properties it")
        names = True
    if least > 1 and (patterns or further not in (None, False) or not properties):
        # A name may be said twice, and then counts once.
        walk.refuse(place, "minProperties", "above 1, with names that aren't listed, it")
        least = 0
    if further is None:
        # Where nothing is said of its properties: any object; else none beyond those.
        further = not ("properties" in schema or patterns)
    written: Schema = {"type": "object", **_named(properties, required, further, place, walk)}
    if patterns:
        written |= _patterned(patterns, place, walk)
    elif isinstance(further, bool):
        written["additionalProperties"] = further
    else:
        written["additionalProperties"] = walk.schema(further, under(place, "additionalProperties"))
    if names is not True and further is not False:  # without a name there is nothing to hold
        names = {"type": "string", **names} if isinstance(names, Mapping) else names
        written["propertyNames"] = walk.schema(names, under(place, "propertyNames"))
    return Written(written | _given({"minProperties": least or None, "maxProperties": most}))


def _named(properties: Mapping[str, object], required: list[str], further: object, place: str, walk: Walk) -> Schema:
    where = under(place, "properties")
    written = {name: walk.schema(part, under(where, name)) for name, part in properties.items()}
    for name in required:
        if name not in written:
            if further is False:
                where = under(place, "required")
                raise Refused(f"`{where}` names a property that isn't allowed.", where, unsupported=False)
            written[name] = walk.schema(further, under(place, "additionalProperties"))
    return ({"properties": written} if written else {}) | ({"required": required} if required else {})


def _required(schema: Schema, place: str) -> list[str]:
    names = schema.get("required", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        where = under(place, "required")
        raise Refused(f"`{where}` must be a list of names.", where, unsupported=False)
    return list(dict.fromkeys(names))


def _patterned(patterns: Mapping[str, object], place: str, walk: Walk) -> Schema:
    where = under(place, "patternProperties")
    [(pattern, part)] = patterns.items()
    here = under(where, pattern)
    return {
        "patternProperties": {within_json(pattern, here): walk.schema(part, here)},
        "additionalProperties": False,
    }


def _parts(schema: Schema, name: str, place: str) -> Mapping[str, object]:
    found = schema.get(name, {})
    if not isinstance(found, Mapping):
        where = under(place, name)
        raise Refused(f"`{where}` must be an object that holds schemas.", where, unsupported=False)
    return found


def _counts(schema: Schema, least: str, most: str, place: str) -> tuple[int, int | None]:
    for name in (least, most):
        if schema.get(name) is not None and not is_count(schema[name]):
            where = under(place, name)
            raise Refused(f"`{where}` must be an integer from 0.", where, unsupported=False)
    low, high = int(schema.get(least) or 0), schema.get(most)
    if high is not None and low > high:
        where = under(place, least)
        raise Refused(f"`{where}` is more than `{most}`.", where, unsupported=False)
    return low, None if high is None else int(high)


def _given(values: Schema) -> Schema:
    return {name: value for name, value in values.items() if value is not None}


_HANDLERS: dict[str, Callable[[Schema, str, Walk], Written]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _plain("boolean"),
    "null": _plain("null"),
    "array": _array,
    "object": _object,
}

"""Where something is in a schema, and whether a value is what it should be."""

import re

_PLAIN = re.compile(r"[\w$@-]{1,64}")


def keyword_of(name: str) -> str:
    """A name as it is shown in a place: shortened, and in quotes where it holds anything but letters."""
    return name if _PLAIN.fullmatch(name) else repr(name[:64])


def under(place: str, name: str) -> str:
    return f"{place}.{keyword_of(name)}"


def of_type(value: object, kind: str) -> bool:
    """Whether a JSON value is of a type of JSON Schema."""
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return _is_whole(value)
        case "number":
            return is_number(value)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case _:
            return isinstance(value, dict)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: object) -> bool:
    """Whether it says how many: an integer from 0 to 2**31 - 1, which JSON may write as 3.0."""
    return isinstance(value, int | float) and _is_whole(value) and 0 <= value < 2**31


def _is_whole(value: object) -> bool:
    return is_number(value) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def values_fit(value: object) -> bool:
    """Whether all of its integers have 64 bits: larger ones are rounded."""
    if isinstance(value, dict):
        return all(map(values_fit, value.values()))
    if isinstance(value, list):
        return all(map(values_fit, value))
    return not isinstance(value, int) or -(2**63) <= value < 2**63

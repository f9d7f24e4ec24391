"""What of a JSON Schema can be kept, and in which words: the schema written again for the engine's grammars.

The grammars' own converter ignores what it doesn't know, and what is beside some keywords. So every keyword that
JSON Schema gives a meaning to is looked at here: it is kept, it says nothing (annotations, keywords of another type),
or the schema is refused with the keyword and its place. What is written is no wider than what was read: any answer
that fits it fits the client's schema. It may be narrower where the client left a choice (an object without
`additionalProperties` gets no further properties, as in OpenAI's strict mode).

In the loose mode, for calls of functions that aren't `strict`, what can't be kept is left out instead, and named.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from engine.grammar.disjoint import are_disjoint, never_ends
from engine.grammar.errors import Refused
from engine.grammar.places import keyword_of, of_type, under, values_fit
from engine.grammar.typed import BY_TYPE, KEYWORDS, TYPES, held_of_type

Schema = dict[str, Any]

DEPTH_MAX = 32
# Keywords that can't be kept, whatever is beside them.
_NEVER = (
    *("not", "if", "dependentSchemas", "dependentRequired", "dependencies"),
    *("$dynamicRef", "$recursiveRef", "unevaluatedItems"),
)
_COMBINED = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")


class TooDeep(Refused):
    """The schema is nested too deep to be looked at, however loosely."""


@dataclass(frozen=True, slots=True)
class Held:
    """The schema to make a grammar of, and the places of what it doesn't hold an answer to (in the loose mode)."""

    schema: Schema
    left_out: tuple[str, ...] = ()


def held(schema: object, place: str, *, loose: bool = False) -> Held:
    """Raises Refused; in the loose mode only TooDeep."""
    walk = _Walk(schema, place, loose, _mark(schema))
    written = walk.schema(schema, place)
    walk.finish()
    definitions = walk.definitions
    if walk.refers_to_itself() or never_ends(written, definitions):
        if loose:
            return Held({}, (place,))
        raise Refused(f"`{place}`: no answer can end, since a part of it refers to itself.", place, unsupported=False)
    return Held(written | ({"$defs": definitions} if definitions else {}), tuple(walk.left_out))


@dataclass(slots=True)
class _Walk:
    """One pass over one schema. Definitions are written once, and only those that are referred to."""

    root: object
    place: str
    loose: bool
    mark: str  # in the names of definitions: those of several functions may come together
    definitions: dict[str, Schema] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)  # a pointer, and the name of its definition
    _shared: dict[str, str] = field(default_factory=dict)  # a schema written before, and the name of its definition
    _waiting: list[tuple[str, str]] = field(default_factory=list)
    _depth: int = 0

    def finish(self) -> None:
        """Write the definitions that are referred to, and those that they refer to."""
        while self._waiting:
            pointer, name = self._waiting.pop()
            self.definitions[name] = self.schema(self.target(pointer), f"{self.place}{_shown(pointer)}")

    def schema(self, schema: object, place: str) -> Schema:
        if schema is True:
            return {}
        if self._depth >= DEPTH_MAX:
            raise TooDeep(f"`{self.place}` is nested deeper than the {DEPTH_MAX} levels that are allowed.", self.place)
        self._depth += 1
        try:
            return self._object(schema, place)
        except Refused as refusal:
            if not self.loose or isinstance(refusal, TooDeep):
                raise
            self.left_out.append(refusal.place)
            return {}
        finally:
            self._depth -= 1

    def _object(self, value: object, place: str) -> Schema:
        if value is False:
            raise Refused(f"`{place}` can't be kept: `false` allows no value. Leave it out.", place)
        if not isinstance(value, Mapping):
            raise Refused(f"`{place}` must be a schema: an object, or true.", place, unsupported=False)
        schema: Schema = dict(value)
        for name in _NEVER:
            if name in schema and not _says_nothing(name, schema):
                self.refuse(place, name)
        if "$id" in schema and place != self.place:
            self.refuse(place, "$id")
        if "const" in schema and isinstance(schema.get("enum"), list) and schema["const"] in schema["enum"]:
            del schema["enum"]  # pydantic wrote both
        combined = [name for name in _COMBINED if name in schema]
        if not combined:
            return self._plain(schema, place)
        first = combined[0]
        for name in schema:
            if (name in KEYWORDS and name != "type") or name in combined[1:]:
                self.refuse(place, name, f"beside `{first}` it")
        value = schema[first]
        if first == "$ref":
            return self._reference(value, schema.get("type"), place)
        if first in ("const", "enum"):
            return self._values([value] if first == "const" else value, schema.get("type"), under(place, first))
        return self._branches(first, value, schema.get("type"), place)

    def _plain(self, schema: Schema, place: str) -> Schema:
        kinds = self._kinds(schema, place)
        parts = [self._typed(kind, schema, place) for kind in kinds]
        if not parts:
            return {}
        return parts[0] if len(parts) == 1 else {"anyOf": parts}

    def _kinds(self, schema: Schema, place: str) -> list[str]:
        """The types that it allows; none for any. Keywords of a type without a `type` are taken to mean that type."""
        kinds = schema.get("type")
        if kinds is None:
            return [kind for kind in TYPES if kind != "integer" and any(name in schema for name in BY_TYPE[kind])]
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not isinstance(kinds, Sequence) or not kinds or not all(kind in TYPES for kind in kinds):
            where = under(place, "type")
            raise Refused(f"`{where}` must be one of {', '.join(TYPES)}, or a list of them.", where, unsupported=False)
        return [kind for kind in dict.fromkeys(kinds) if not (kind == "integer" and "number" in kinds)]

    def _typed(self, kind: str, schema: Schema, place: str) -> Schema:
        written = held_of_type(kind, schema, place, self)
        if not written.shared:
            return written.schema
        # One rule of the grammar for all strings of a length: it is compiled once.
        key = json.dumps(written.schema, sort_keys=True)
        name = self._shared.setdefault(key, f"s{len(self._shared)}_{self.mark}")
        self.definitions[name] = written.schema
        return {"$ref": f"#/$defs/{name}"}

    def _values(self, values: object, kinds: object, place: str) -> Schema:
        if not isinstance(values, list) or not values:
            raise Refused(f"`{place}` must be a list with at least one value.", place, unsupported=False)
        if not all(values_fit(value) for value in values):
            raise Refused(f"`{place}` can't be kept: an integer has more than 64 bits.", place)
        if kinds is not None:
            allowed = self._kinds({"type": kinds}, place)
            values = [value for value in values if any(of_type(value, kind) for kind in allowed)]
        if not values:
            raise Refused(f"`{place}` has no value of the `type` beside it.", place, unsupported=False)
        return {"enum": values}

    def _branches(self, name: str, branches: object, kinds: object, place: str) -> Schema:
        where = under(place, name)
        if not isinstance(branches, list) or not branches:
            raise Refused(f"`{where}` must be a list with at least one schema.", where, unsupported=False)
        if name == "allOf" and len(branches) > 1:
            self.refuse(place, name, "with several schemas it")
            return self._plain({"type": kinds} if kinds is not None else {}, place)
        if name == "oneOf" and not are_disjoint([self._resolved(branch) for branch in branches]):
            self.refuse(place, name, "with schemas that a value may fit two of it", "`anyOf` can be kept.")
        written = [self.schema(self._of_kinds(branch, kinds, where), f"{where}[{index}]")
                   for index, branch in enumerate(branches)]  # fmt: skip
        return written[0] if len(written) == 1 else {"anyOf": written}

    def _of_kinds(self, branch: object, kinds: object, place: str) -> object:
        """The branch with the `type` beside `anyOf`."""
        if kinds is None:
            return branch
        if not isinstance(branch, Mapping) or "$ref" in branch or branch.get("type", kinds) != kinds:
            self.refuse(place.rpartition(".")[0], "type", "beside schemas with other types it")
            return branch
        return {**branch, "type": kinds}

    def _reference(self, pointer: object, kinds: object, place: str) -> Schema:
        where = under(place, "$ref")
        if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
            raise Refused(
                f"`{where}` can't be kept: it must lead to a part of this schema, as in `#/$defs/name`.", where
            )
        target = self._resolved({"$ref": pointer})
        if kinds is not None and not (isinstance(target, Mapping) and target.get("type") == kinds):
            self.refuse(place, "type", "beside a `$ref` to another type it")
        if pointer not in self._names:
            self._names[pointer] = f"d{len(self._names)}_{self.mark}"
            self._waiting.append((pointer, self._names[pointer]))
        return {"$ref": f"#/$defs/{self._names[pointer]}"}

    def target(self, pointer: str) -> object:
        """What a pointer within this schema leads to. Raises Refused."""
        found = self.root
        for step in pointer.split("/")[1:]:
            step = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and step in found:
                found = found[step]
            elif isinstance(found, list) and step.isdecimal() and len(step) < 9 and int(step) < len(found):
                found = found[int(step)]
            else:
                raise Refused(f"`{self.place}`: the `$ref` to `{pointer[:80]}` leads nowhere.", self.place,
                              unsupported=False)  # fmt: skip
        return found

    def _resolved(self, schema: object) -> object:
        for _ in range(DEPTH_MAX):
            pointer = schema.get("$ref") if isinstance(schema, Mapping) else None
            if not isinstance(pointer, str) or not pointer.startswith("#"):
                break
            schema = self.target(pointer)
        return schema

    def refers_to_itself(self) -> bool:
        """Whether a definition comes to itself with nothing in between."""
        direct = {name: set(_direct(schema)) for name, schema in self.definitions.items()}
        left = dict(direct)
        while ready := [name for name, others in left.items() if not others & left.keys()]:
            for name in ready:
                del left[name]
        return bool(left)

    def refuse(
        self, place: str, name: str, how: str = "it", instead: str = "Leave it out, and check it yourself."
    ) -> None:
        """Raises Refused; in the loose mode it only notes what is left out."""
        where = under(place, name)
        if not self.loose:
            raise Refused(f"`{where}` can't be kept: {how} is not supported by the engine's grammars. {instead}", where)
        self.left_out.append(where)


def _mark(schema: object) -> str:
    return f"{zlib.crc32(json.dumps(schema, sort_keys=True).encode()):08x}"


def _says_nothing(name: str, schema: Schema) -> bool:
    return name == "if" and "then" not in schema and "else" not in schema


def _direct(schema: Schema) -> Iterator[str]:
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2]
    for branch in schema.get("anyOf", ()):
        yield from _direct(branch)


def _shown(pointer: str) -> str:
    return "".join(f".{keyword_of(step)}" for step in pointer.split("/")[1:])

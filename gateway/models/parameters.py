"""Parameter profiles: the sampling parameters of a model and their ranges, as data.

A profile is a table in `cards/profiles.toml` or in an operator's card file. One row of it is all that a parameter
needs: request bodies, checks, error messages, JSON schemas, the model page and what the engine is told
(`engine.base.Sampling`) are made from the `Parameter`s read here, so they can't disagree.
"""

import functools
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, Literal, get_args

import annotated_types
from pydantic import AllowInfNan, BaseModel, BeforeValidator, ConfigDict, FailFast, Field, Strict, ValidationError
from pydantic.fields import FieldInfo

Route = Literal["chat", "completions", "responses", "messages", "native", "embeddings", "score", "tokenize"]
Section = Literal["openai", "native"]
Number = int | float

STOP_CHARACTERS_MAX = 4096
TOKEN_ID_MAX = 2**31


class Parameter(BaseModel):
    """One sampling parameter: what is allowed, and what it is called on each route and by the engine.

    `engine` is the name in `engine.base.Sampling` or vLLM's `SamplingParams`: the parameter's own if it isn't given,
    and "" for a field that doesn't go to the sampler as it is. `routes` are the routes that have it, `names` what
    they call it where they have another name. `off` are values of other servers that mean absent here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["number", "integer", "boolean", "strings", "tokens"]
    minimum: Number | None = None
    above: Number | None = None  # exclusive minimum
    maximum: Number | None = None
    below: Number | None = None  # exclusive maximum
    items_max: int = 0
    default: bool | Number | None = None
    description: str = ""
    hint: str = ""  # ends the error message, such as "0 means off"
    engine: str | None = None
    routes: tuple[Route, ...] = ("chat", "completions", "responses")
    names: dict[Route, str] = Field(default_factory=dict)
    off: tuple[Number, ...] = ()

    def field(self) -> tuple[Any, FieldInfo]:
        """Type and field for `pydantic.create_model`. Strict, so that 1.0 is no integer and true no number."""
        match self.kind:
            case "strings":
                text = Annotated[str, Field(min_length=1, max_length=STOP_CHARACTERS_MAX)]
                return self._list(_annotated(self._items(text), BeforeValidator(_listed)), _one_or_more)
            case "tokens":
                return self._list(self._items(Annotated[int, Strict(), Field(ge=0, lt=TOKEN_ID_MAX)]))
            case "boolean":
                plain: Any = Annotated[bool, Strict()]
            case _:
                plain = self._number()
        default = float(self.default) if self.kind == "number" and self.default is not None else self.default
        annotation = plain if default is not None else plain | None
        if self.off:
            annotation = _annotated(annotation, BeforeValidator(functools.partial(_on, self)))
        return annotation, FieldInfo(default=default, description=self.description)

    def allowed(self, name: str) -> str:
        """What is allowed, in words: `a number with 0 ≤ temperature ≤ 2`."""
        match self.kind:
            case "strings":
                return f"a list of at most {self.items_max} strings"
            case "tokens":
                return f"a list of at most {self.items_max} token ids"
            case "boolean":
                return "true or false"
        low = _bound(self.minimum, "≤") or _bound(self.above, "<")
        high = _bound(self.maximum, "≤", left=False) or _bound(self.below, "<", left=False)
        article = "an integer" if self.kind == "integer" else "a number"
        bounds = f"{article} with {low}{name}{high}" if low or high else article
        return f"{bounds} ({self.hint})" if self.hint else bounds

    def _number(self) -> Any:
        limits: dict[str, Callable[[Any], object]] = {
            "minimum": annotated_types.Ge,
            "above": annotated_types.Gt,
            "maximum": annotated_types.Le,
            "below": annotated_types.Lt,
        }
        bounds = [limit(getattr(self, name)) for name, limit in limits.items() if getattr(self, name) is not None]
        finite = [AllowInfNan(False)] if self.kind == "number" else []
        return _annotated(int if self.kind == "integer" else float, Strict(), *finite, *bounds)

    def _items(self, item: Any) -> Any:
        # FailFast: a list of a million faults would make a million errors before the first is told.
        return _annotated(list[item], FailFast(), annotated_types.MaxLen(self.items_max))

    def _list(self, items: Any, extra: Callable[[dict[str, Any]], None] | None = None) -> tuple[Any, FieldInfo]:
        return items, FieldInfo(default_factory=list, description=self.description, json_schema_extra=extra)


@dataclass(frozen=True, slots=True)
class Profile:
    """The parameters of a model by section: those of the OpenAI routes and those of the native one.

    `left_out` are parameters that another profile has and this one's page lacks: to send one is an error.
    """

    name: str
    sections: Mapping[Section, Mapping[str, Parameter]]
    left_out: Mapping[Section, frozenset[str]]

    def __hash__(self) -> int:
        return hash(self.name)

    def route(self, route: Route) -> dict[str, Parameter]:
        """The parameters of one route, by the names that it gives them; each says what the engine calls it."""
        return {
            row.names.get(route, name): row if row.engine is not None else row.model_copy(update={"engine": name})
            for name, row in self.sections[_section(route)].items()
            if _section(route) == "native" or route in row.routes
        }

    def lacks(self, route: Route) -> frozenset[str]:
        return self.left_out[_section(route)]


# What routes call the same thing, for whoever takes a body from one to another.
SYNONYMS = (
    ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens"),
    ("stop", "stop_sequences"),
    ("n", "num_responses"),
)


class ProfileError(ValueError):
    """A profile is wrong; the sentence says which, and where."""


@functools.cache
def shipped_profiles() -> dict[str, Profile]:
    """The profiles of `cards/profiles.toml`, by name."""
    text = resources.files("gateway").joinpath("models/cards/profiles.toml").read_text(encoding="utf-8")
    return read_profiles(tomllib.loads(text))


@functools.cache
def parameter_names() -> frozenset[str]:
    """What any route calls a parameter: on a route that lacks it, it isn't passed over but refused."""
    profiles = shipped_profiles().values()
    return frozenset(name for profile in profiles for route in get_args(Route) for name in profile.route(route))


def read_profiles(document: Mapping[str, object], known: Mapping[str, Profile] | None = None) -> dict[str, Profile]:
    """Profiles from a TOML document: `[profile.NAME.openai]` and `[profile.NAME.native]` with a row for each parameter.

    `extends = "OTHER"` starts from another profile, of the document or of `known`: a row of one's own changes the
    fields that it names, and `PARAMETER = false` leaves a parameter out. Raises ProfileError.
    """
    tables = document.get("profile", {})
    if not isinstance(tables, dict):
        raise ProfileError("`profile` must be a table of profiles.")
    found: dict[str, Profile] = {}
    for name in tables:
        _read_profile(name, tables, known or {}, found, ())
    return found


def _read_profile(
    name: str,
    tables: Mapping[str, object],
    known: Mapping[str, Profile],
    found: dict[str, Profile],
    path: tuple[str, ...],
) -> Profile:
    if name in found:
        return found[name]
    table = tables[name]
    if not isinstance(table, dict) or table.keys() - {"extends", *get_args(Section)}:
        raise ProfileError(f'Profile "{name}" must be a table with `extends`, `openai` and `native`.')
    base = table.get("extends")
    parent: Profile | None = None
    if base in (*path, name):
        raise ProfileError(f'Profile "{name}" extends itself, by way of {", ".join((*path, name))}.')
    if isinstance(base, str) and base in tables:
        parent = _read_profile(base, tables, known, found, (*path, name))
    elif base is not None:
        parent = known.get(str(base))
        if parent is None:
            raise ProfileError(f'Profile "{name}" extends "{base}", which doesn\'t exist.')
    sections: dict[Section, Mapping[str, Parameter]] = {}
    left_out: dict[Section, frozenset[str]] = {}
    for section in get_args(Section):
        inherited = parent.sections[section] if parent is not None else {}
        rows, absent = _read_section(name, section, table.get(section, {}), inherited)
        sections[section] = {key: row for key, row in {**inherited, **rows}.items() if key not in absent}
        left_out[section] = (absent | (parent.left_out[section] if parent is not None else frozenset())) - rows.keys()
    found[name] = Profile(name, sections, left_out)
    return found[name]


def _read_section(
    profile: str, section: str, table: object, inherited: Mapping[str, Parameter]
) -> tuple[dict[str, Parameter], frozenset[str]]:
    """The rows of a section, and the names that it leaves out. A row changes what it inherits, field by field."""
    if not isinstance(table, dict):
        raise ProfileError(f'Profile "{profile}": `{section}` must be a table of parameters.')
    rows: dict[str, Parameter] = {}
    for name, row in table.items():
        if row is False:
            continue
        if not isinstance(row, dict):
            raise ProfileError(f'Profile "{profile}": `{section}.{name}` must be a row such as {{ kind = "number" }}.')
        try:
            rows[name] = Parameter.model_validate(_over(inherited.get(name), row))
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in (section, name, *fault["loc"]))
            raise ProfileError(f'Profile "{profile}" has a wrong `{place}`: {fault["msg"]}.') from None
    return rows, frozenset(table.keys() - rows.keys())


def _over(inherited: Parameter | None, row: dict[str, object]) -> dict[str, object]:
    """A bound takes the place of the inherited bound on its side, whether either is exclusive or not."""
    if inherited is None:
        return row
    base = inherited.model_dump(exclude_unset=True)
    for side in (("minimum", "above"), ("maximum", "below")):
        if row.keys() & set(side):
            base = {name: value for name, value in base.items() if name not in side}
    return base | row


def _one_or_more(schema: dict[str, Any]) -> None:
    """For `json_schema_extra` of a list field that takes a single item too."""
    items = {key: schema.pop(key) for key in ("type", "items", "maxItems", "minItems") if key in schema}
    single = {key: value for key, value in items["items"].items() if key != "minLength"}  # "" means none
    schema["anyOf"] = [single, items]


def _listed(value: object) -> object:
    """A single string is a list of one; an empty one, as some servers' clients send it, is none."""
    if isinstance(value, str):
        return [value] if value else []
    return value


def _on(parameter: Parameter, value: object) -> object:
    return parameter.default if type(value) in (int, float) and value in parameter.off else value


def _section(route: Route) -> Section:
    return "native" if route == "native" else "openai"


def _annotated(annotation: Any, *metadata: object) -> Any:
    """`Annotated[annotation, *metadata]`, for metadata known only at run time."""
    return Annotated[(annotation, *metadata)]


def _bound(value: Number | None, sign: str, *, left: bool = True) -> str:
    if value is None:
        return ""
    return f"{value} {sign} " if left else f" {sign} {value}"

"""Parameter profiles: the ranges of a model's parameters, as data.

A profile is a table in `cards/profiles.toml`. The checks of a request, the JSON schemas, the model pages and the
error messages are all made from the `Parameter`s read here, so they can't disagree.
"""

import functools
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, Literal

import annotated_types
from pydantic import AllowInfNan, BaseModel, ConfigDict, Strict
from pydantic.fields import FieldInfo

Route = Literal["openai", "native", "messages", "responses", "embeddings"]

# What these routes call the parameters of the OpenAI routes.
_NAMES: dict[Route, dict[str, str]] = {
    "messages": {"stop": "stop_sequences"},
    "responses": {"max_tokens": "max_output_tokens"},
}


class Parameter(BaseModel):
    """The range of one number, or, for `kind = "list"`, how many items are allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["number", "integer", "list"]
    minimum: int | float | None = None
    above: int | float | None = None  # exclusive minimum
    maximum: int | float | None = None
    below: int | float | None = None  # exclusive maximum
    items_max: int | None = None
    default: int | float | None = None
    description: str = ""

    def field(self, declared: FieldInfo) -> tuple[Any, FieldInfo]:
        """Type and field for `pydantic.create_model`: what the body declares, narrowed to this range.

        Strict, so that 1.0 is no integer and true no number.
        """
        if self.kind == "list":
            items = _annotated(declared.annotation, *declared.metadata, annotated_types.MaxLen(self.items_max or 0))
            return items, FieldInfo(
                default_factory=list, description=self.description, json_schema_extra=declared.json_schema_extra
            )
        limits: dict[str, Callable[[Any], object]] = {
            "minimum": annotated_types.Ge,
            "above": annotated_types.Gt,
            "maximum": annotated_types.Le,
            "below": annotated_types.Lt,
        }
        bounds = [limit(getattr(self, name)) for name, limit in limits.items() if getattr(self, name) is not None]
        finite = [AllowInfNan(False)] if self.kind == "number" else []
        number = _annotated(int if self.kind == "integer" else float, Strict(), *finite, *bounds)
        return number if self.default is not None else number | None, FieldInfo(
            default=self.default, description=self.description
        )

    def allowed(self, name: str) -> str:
        """What is allowed, in words: `a number with 0 ≤ temperature ≤ 2`."""
        if self.kind == "list":
            return f"a list of at most {self.items_max} strings"
        low = _bound(self.minimum, "≤") or _bound(self.above, "<")
        high = _bound(self.maximum, "≤", left=False) or _bound(self.below, "<", left=False)
        article = "an integer" if self.kind == "integer" else "a number"
        return f"{article} with {low}{name}{high}" if low or high else article


@dataclass(frozen=True, slots=True)
class Profile:
    """The parameters of a model on the OpenAI routes and on the native one, by field name."""

    name: str
    openai: dict[str, Parameter]
    native: dict[str, Parameter]

    def route(self, route: Route) -> dict[str, Parameter]:
        if route == "native":
            return self.native
        if (names := _NAMES.get(route)) is None:
            return self.openai
        return {names.get(name, name): parameter for name, parameter in self.openai.items()}


@functools.cache
def shipped_profiles() -> dict[str, Profile]:
    """The profiles of `cards/profiles.toml`, by name."""
    text = resources.files("gateway").joinpath("cards/profiles.toml").read_text(encoding="utf-8")
    return read_profiles(tomllib.loads(text))


def read_profiles(document: dict[str, object]) -> dict[str, Profile]:
    """Profiles from a TOML document: `[profile.NAME.openai.PARAMETER]`, with `extends = "OTHER"`."""
    tables = document.get("profile", {})
    if not isinstance(tables, dict):
        raise TypeError("`profile` must be a table of profiles.")
    return {name: _read_profile(name, tables) for name in tables}


def _read_profile(name: str, tables: dict[str, dict[str, object]]) -> Profile:
    table = tables[name]
    base = table.get("extends")
    if base is None:
        inherited: dict[str, dict[str, Parameter]] = {"openai": {}, "native": {}}
    elif isinstance(base, str) and base in tables:
        parent = _read_profile(base, tables)
        inherited = {"openai": parent.openai, "native": parent.native}
    else:
        raise ValueError(f'Profile "{name}" extends "{base}", which doesn\'t exist.')
    merged = {}
    for route, parameters in inherited.items():
        own = table.get(route, {})
        if not isinstance(own, dict):
            raise TypeError(f'Profile "{name}": `{route}` must be a table of parameters.')
        merged[route] = parameters | {key: Parameter.model_validate(value) for key, value in own.items()}
    return Profile(name, merged["openai"], merged["native"])


def _annotated(annotation: Any, *metadata: object) -> Any:
    """`Annotated[annotation, *metadata]`, for metadata known only at run time."""
    return Annotated[(annotation, *metadata)]


def _bound(value: int | float | None, sign: str, *, left: bool = True) -> str:
    if value is None:
        return ""
    return f"{value} {sign} " if left else f" {sign} {value}"

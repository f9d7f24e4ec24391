"""What a model's page tells, from the tables that do the checking: its routes, their fields and their schemas."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.routing import BaseRoute, Route

from gateway.console.formats import bounds, value
from gateway.models.model import Model
from gateway.models.parameters import Parameter
from gateway.protocol.body import RequestBody
from gateway.protocol.operation import EVENTS, JSON, Operation
from gateway.protocol.schema import NOTHING, NULL, JSONSchema, schema_of
from gateway.routes.endpoint import Generating
from gateway.schemas.models import body_schema

PREFERRED = "/v1/openai"  # where the pages that this gateway stands in for have OpenAI's routes
OFF: list[JSONSchema] = [NULL, *NOTHING]
TITLES = {
    "chat": "Chat completions",
    "completions": "Completions",
    "responses": "Responses",
    "messages": "Anthropic messages",
    "native": "Inference",
    "embeddings": "Embeddings",
    "score": "Scores",
}
# Not for the playground, which shows one answer and counts its tokens by itself.
# In the order of the pages that this gateway stands in for; what they don't have comes after.
FIRST_FIELDS = (
    *("model", "messages", "input", "prompt", "stream", "max_new_tokens", "temperature", "top_p", "min_p", "top_k"),
    *("max_tokens", "stop", "n", "num_responses", "presence_penalty", "frequency_penalty", "tools", "tool_choice"),
    *("response_format", "repetition_penalty", "user", "seed", "webhook"),
)
FIRST_CONTROLS = ("temperature", "max_tokens", "top_p", "top_k", "stop", "seed")
NO_CONTROLS = frozenset({"n", "max_completion_tokens", "top_logprobs", "stop_token_ids"})


@dataclass(frozen=True, slots=True)
class Field:
    """A row of the table of parameters. `note` says what the gateway makes of a field that it doesn't use."""

    name: str
    type: str
    required: bool
    description: str
    default: str
    range: str
    choices: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class APIRoute:
    """A route that a model has. `path` may hold the model's name."""

    name: str
    path: str
    operation: Operation
    body: type[RequestBody]

    @property
    def title(self) -> str:
        return TITLES.get(self.name, self.operation.summary)

    @property
    def parts(self) -> tuple[str, ...]:
        """Which schemas there are."""
        return ("input", "output", "streaming") if EVENTS in self.operation.answers else ("input", "output")

    def at(self, model: Model) -> str:
        return self.path.replace("{model:path}", model.name)


class ModelPages:
    """The generating routes of an application, and what each takes of which model."""

    def __init__(self, api: Iterable[BaseRoute]) -> None:
        found: dict[tuple[str, type[RequestBody]], APIRoute] = {}
        for route in api:
            if isinstance(route, Route) and isinstance(route.app, Generating):
                operation, body = route.app.operation, route.app.body
                made = APIRoute(body.ROUTE, route.path, operation, body)
                if EVENTS not in operation.answers and _streams(made):
                    continue  # of several routes with one body, one answers; the others count or show
                if (made.name, body) not in found or route.path.startswith(PREFERRED):
                    found[made.name, body] = made
        places = {name: place for place, name in enumerate(TITLES)}
        self._routes = sorted(found.values(), key=lambda route: places.get(route.name, len(places)))
        # With the model that they are of: an adapter of the same name may take its place.
        self._schemas: dict[tuple[str, str, str], tuple[Model, JSONSchema]] = {}
        self._rows: dict[tuple[str, str], tuple[Model, tuple[Field, ...]]] = {}

    def routes(self, model: Model) -> list[APIRoute]:
        """Those that do what the model does, as their table has them."""
        return [route for route in self._routes if route.operation.task == model.card.task]

    def route(self, model: Model, name: str) -> APIRoute | None:
        return next((route for route in self.routes(model) if route.name == name), None)

    def schema(self, model: Model, route: APIRoute, part: str) -> JSONSchema:
        """JSON Schema of what it takes, of its answer, or of each event. Making one takes a while, the first time."""
        place = (model.name, route.name, part)
        known = self._schemas.get(place)
        if known is None or known[0] is not model:
            known = self._schemas[place] = model, self._schema(model, route, part)
        return known[1]

    def fields(self, model: Model, route: APIRoute) -> tuple[Field, ...]:
        """What the route takes of this model: what is required first, what changes nothing last."""
        place = (model.name, route.name)
        known = self._rows.get(place)
        if known is None or known[0] is not model:
            known = self._rows[place] = model, self._fields(model, route)
        return known[1]

    def _schema(self, model: Model, route: APIRoute, part: str) -> JSONSchema:
        if part == "input":
            return body_schema(route.body, model)
        shape: Any = route.operation.answers[JSON if part == "output" else EVENTS]
        return schema_of(shape)

    def _fields(self, model: Model, route: APIRoute) -> tuple[Field, ...]:
        schema = self.schema(model, route, "input")
        required, definitions = schema.get("required", ()), schema.get("$defs", {})
        table = route.body.FIELDS
        rows = [
            Field(
                name=name,
                type=" or ".join(kinds(field, definitions)) or "any",
                required=name in required,
                description=field.get("description", ""),
                default=value(field["default"]) if field.get("default") is not None else "",
                range=bounds(name, field) or _count(field),
                choices=choices(field),
                note="hint" if name in table.hints else "refused" if name in table.refused else "",
            )
            for name, field in schema["properties"].items()
            if field.get("type") != "null"
        ]
        order = {name: place for place, name in enumerate(FIRST_FIELDS)}
        rows.sort(key=lambda row: (bool(row.note), not row.required, order.get(row.name, len(order))))
        return tuple(rows)


def controls(model: Model) -> list[tuple[str, Parameter]]:
    """The parameters that a playground can set, by their names in a chat."""
    rows = [(name, row) for name, row in model.profile.route("chat").items() if name not in NO_CONTROLS]
    order = {name: place for place, name in enumerate(FIRST_CONTROLS)}
    return sorted(rows, key=lambda one: order.get(one[0], len(order)))


def kinds(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    """JSON's words for what a field may be, without null and what means "off"."""
    if "$ref" in schema:
        return kinds(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for union in ("anyOf", "oneOf"):
        if union in schema:
            found = [kind for option in schema[union] if option not in OFF for kind in kinds(option, definitions)]
            return list(dict.fromkeys(found))
    named = schema.get("type", [])
    return [kind for kind in (named if isinstance(named, list) else [named]) if kind != "null"]


def choices(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The words that may be sent, where there are few."""
    options = [schema, *schema.get("anyOf", ())]
    return tuple(str(one) for option in options for one in option.get("enum", ()) if one is not None)


def _count(schema: Mapping[str, Any]) -> str:
    """How many items a list may have."""
    options = [schema, *(option for option in schema.get("anyOf", ()) if option not in OFF)]
    counts = [option["maxItems"] for option in options if "maxItems" in option]
    return f"at most {value(counts[0])} items" if counts else ""


def _streams(route: APIRoute) -> bool:
    return "stream" in route.body.model_fields or route.name == "messages"

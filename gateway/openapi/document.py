"""The OpenAPI 3.1 document of a gateway: its routes, with the schemas of the models that it serves."""

import json
import re
from collections.abc import Iterable
from types import UnionType
from typing import Any, get_args, get_origin

from starlette.convertors import IntegerConvertor
from starlette.routing import BaseRoute, Route

from gateway.models.catalog import Catalog
from gateway.models.model import Model
from gateway.openapi import common
from gateway.openapi.common import Fields
from gateway.protocol.body import Body, RequestBody
from gateway.protocol.operation import EVENTS, FORM, JSON, Operation, operation_of
from gateway.protocol.schema import schema_of
from gateway.request.auth import OPEN_PATHS
from gateway.schemas.models import body_schema
from gateway.schemas.openai import Error

REFERENCE = "#/components/schemas/{model}"

INTRODUCTION = """\
An OpenAI-compatible API whose every request is checked, charged and accounted for.

Every OpenAI path works under `/v1/` and under `/v1/openai/`. Send your key as `Authorization: Bearer KEY` or as \
`x-api-key: KEY`. Bodies are JSON, plain or gzip. null for an optional field means that it is absent. A wrong type and \
a number outside its range are refused, never changed; an unknown field is named in the header `farebox-ignored`, or \
refused where it looks like a typo. Every path that answers GET answers HEAD too. Every error has the shape \
of the schema `Error`.
"""

TAGS = {
    "Chat and completions": "OpenAI's routes.",
    "Embeddings": "Vectors from texts, where a model that makes them is served.",
    "Scores": "How well texts go together, where a model that tells it is served.",
    "Responses": "OpenAI's Responses API, as far as nothing needs to be kept on the server.",
    "Files": "What batches are made from, and what they come to.",
    "Batches": "Many requests at once, run where the engine has room, at a price of their own.",
    "Anthropic": "Anthropic's Messages API, through the same pipeline and at the same prices.",
    "Native": "The native route: text in, text out, streamed, or sent to a webhook.",
    "Tokens": "What a prompt comes to, before it is sent.",
    "Models": "Which models are served, at which prices, with which parameters.",
    "Usage": "What your key has spent, and what it may still do.",
    "Administration": "Accounts, keys and money. Needs an admin key; with any other key these paths answer 404.",
    "Operation": "Probes, metrics and documents. No key is needed.",
}


def build(routes: Iterable[BaseRoute], catalog: Catalog, version: str, root_path: str) -> Fields:
    """The document of all documented routes, which are served under `root_path`."""
    schemas = _Schemas(catalog)
    paths: Fields = {}
    for route in routes:
        operation = operation_of(route.endpoint) if isinstance(route, Route) else None
        if operation is not None and isinstance(route, Route):
            path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
            for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
                paths.setdefault(path, {})[method.lower()] = _operation(path, method, route, operation, schemas)
    used = {operation["tags"][0] for path in paths.values() for operation in path.values()}
    schemas.add(Error)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Farebox", "version": version, "description": INTRODUCTION},
        "servers": [{"url": root_path or "/"}],
        "security": common.SECURITY,
        "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in used],
        "paths": paths,
        "components": {"schemas": schemas.found, **common.components()},
    }


def _operation(path: str, method: str, route: Route, operation: Operation, schemas: "_Schemas") -> Fields:
    keyed = path not in OPEN_PATHS
    fields: Fields = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
    }
    if operation.description:
        fields["description"] = operation.description
    if not keyed:
        fields["security"] = []
    if parameters := [
        *(_path_parameter(name, route, schemas) for name in route.param_convertors),
        *_query_parameters(operation.query),
        *([common.IDEMPOTENCY_KEY] if operation.admitted else []),
    ]:
        fields["parameters"] = parameters
    if operation.body is not None:
        content = {JSON: {"schema": schemas.body(operation.body, operation)}}
        fields["requestBody"] = {"required": True, "content": content}
    if operation.form is not None:
        fields["requestBody"] = {"required": True, "content": {FORM: {"schema": schemas.form(operation.form)}}}
    fields["responses"] = _responses(operation, schemas, keyed)
    return fields


def _responses(operation: Operation, schemas: "_Schemas", keyed: bool) -> Fields:
    names = (*common.ALWAYS, *(common.LIMITS if operation.admitted else ()))
    content = {media: schemas.answer(media, shape) for media, shape in operation.answers.items()}
    responses: Fields = {
        str(operation.status): {"description": operation.summary, "headers": common.headers(*names), "content": content}
    }
    for status, shape in operation.others.items():
        answer = {JSON: schemas.answer(JSON, shape)}
        described = {"description": common.ERRORS[status], "headers": common.headers(*common.ALWAYS), "content": answer}
        responses[str(status)] = described
    errors = {
        *(common.KEYED_ERRORS if keyed else common.OPEN_ERRORS),
        *(common.BODY_ERRORS if operation.body is not None or operation.form is not None else ()),
        *((422,) if operation.query is not None else ()),
        *(common.ADMITTED_ERRORS if operation.admitted else ()),
        *operation.errors,
    }
    for status in sorted(errors - operation.others.keys()):
        responses[str(status)] = common.error_reference(status)
    return responses


def _path_parameter(name: str, route: Route, schemas: "_Schemas") -> Fields:
    schema: Fields = {"type": "string", "minLength": 1}
    if name == "model":
        schema = {"type": "string", "enum": schemas.catalog.names}
    elif isinstance(route.param_convertors[name], IntegerConvertor):
        schema = {"type": "integer", "minimum": 0}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(query: type[Body] | None) -> list[Fields]:
    if query is None:
        return []
    schema = schema_of(query)
    parameters = []
    for name, field in schema["properties"].items():
        found = {key: value for key, value in field.items() if key != "description"}
        described = {"description": field["description"]} if "description" in field else {}
        required = name in schema.get("required", ())
        one = {"name": name, "in": "query", "required": required, **described, "schema": _given(found)}
        parameters.append(one if one["schema"].get("type") != "array" else {**one, "style": "form", "explode": False})
    return parameters


def _given(schema: Fields) -> Fields:
    """A query string holds no nulls, and its lists are separated by commas."""
    kinds = schema.get("type")
    if isinstance(kinds, list):
        schema = {**schema, "type": next(kind for kind in kinds if kind != "null")}
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        schema = {key: value for key, value in schema.items() if key != "anyOf"} | options[0]
    return schema


def class_names(models: Iterable[str]) -> dict[str, str]:
    """Each model's name as a part of a class's name in any language, for generated clients: MetaLlamaLlama38B."""
    names: dict[str, str] = {}
    for model in models:
        name = "".join(word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", model))
        while name in names.values():
            name += "Other"
        names[model] = name
    return names


class _Schemas:
    """The schemas under `components`, each once."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.found: Fields = {}
        self._endings = class_names(catalog.names)

    def add(self, shape: type[Any] | UnionType) -> Fields:
        """The schema of a body or an answer: a reference where it has a name, a list of such, or any object."""
        if get_origin(shape) is list:
            return {"type": "array", "items": self.add(*get_args(shape))}
        if isinstance(shape, UnionType):
            return {"anyOf": [self.add(one) for one in get_args(shape)]}
        if shape is dict:
            return {"type": "object"}
        return self._put(shape.__name__, schema_of(shape, REFERENCE))

    def form(self, form: type[Body]) -> Fields:
        """The fields of a form, and its file."""
        schema = schema_of(form, REFERENCE)
        file = {"type": "string", "format": "binary", "description": "The file, with its name."}
        schema["properties"] = {"file": file, **schema["properties"]}
        schema["required"] = ["file", *schema.get("required", ())]
        return self._put(form.__name__, schema)

    def answer(self, media: str, shape: type[Any] | UnionType | None) -> Fields:
        if shape is None:
            return {"schema": {"type": "string"}}
        if media == EVENTS:
            # As OpenAPI before 3.2 has it: `schema` describes each event.
            content = {"anyOf": [self.add(shape), self.add(Error)]}
            data = {"type": "string", "contentMediaType": JSON, "contentSchema": content}
            done = {"const": "[DONE]", "description": "The last event on OpenAI's routes."}
            return {"schema": {"type": "object", "properties": {"data": {"anyOf": [done, data]}}, "required": ["data"]}}
        return {"schema": self.add(shape)}

    def body(self, body: type[Body], operation: Operation) -> Fields:
        """The body, or one of as many as there are different ranges among the models that are served."""
        if not issubclass(body, RequestBody):
            return self.add(body)
        alike: dict[str, tuple[Fields, list[Model]]] = {}
        able = [model for model in self.catalog if operation.task in (None, model.card.task)]
        if not able:
            return self.add(body)
        for model in able:
            schema = body_schema(body, model, REFERENCE)
            alike.setdefault(json.dumps(schema), (schema, []))[1].append(model)
        references = []
        for schema, models in alike.values():
            names = [model.name for model in models]
            names += [alias.name for alias in self.catalog.aliases.values() if alias.alias_of in names]
            schema["title"] = name = body.__name__ if len(alike) == 1 else f"{body.__name__}{self._endings[names[0]]}"
            if "model" in schema["properties"]:
                schema["properties"]["model"]["enum"] = names
            else:
                schema["description"] = f"For {', '.join(names)}."
            references.append(self._put(name, schema))
        return references[0] if len(references) == 1 else {"anyOf": references}

    def _put(self, name: str, schema: Fields) -> Fields:
        """Keep it and its parts. Raises ValueError where two shapes have one name."""
        for part, definition in schema.pop("$defs", {}).items():
            self._put(part, definition)
        if self.found.setdefault(name, schema) != schema:
            raise ValueError(f"Two different schemas are called {name}.")
        return {"$ref": REFERENCE.format(model=name)}

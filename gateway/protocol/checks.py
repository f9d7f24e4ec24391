"""From a raw body to a frozen, valid object, or one clear error that names the fields.

Pydantic does the checking; this file turns its findings into our sentences: which field, what was sent, what is
allowed. Nothing is clamped or coerced, and what is ignored is named to the client (`gateway.protocol.fields`).
"""

import functools
from typing import Any, TypeVar

from pydantic import ValidationError, create_model
from pydantic_core import ErrorDetails, from_json

from gateway.errors import InvalidParameter, InvalidRequest, together
from gateway.errors.suggestions import nearest
from gateway.errors.wording import shorten, show
from gateway.models.parameters import SYNONYMS, Profile, parameter_names
from gateway.protocol.body import Body, JSONObject, RequestBody
from gateway.setting_types import UnknownFields

# Pydantic's names of a union's members; the last ones are those of JsonValue.
NESTING_NAMES = {"function-wrap", "function-before", "function-after", "str", "nullable", "dict", "list", "float"}
ERRORS_MAX = 10  # faults of one body that are told at once
UNKNOWN_MAX = 64  # unknown fields in one body

B = TypeVar("B", bound=Body)
R = TypeVar("R", bound=RequestBody)


def parse_json(raw: bytes) -> JSONObject:
    """The body as an object, without its top-level nulls: null for an optional field means absent.

    Raises InvalidRequest(invalid_json).
    """
    try:
        # pydantic's parser rejects NaN and Infinity, bounds the nesting, and keeps integers exact.
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body must be a JSON object; got {show(value)}.", code="invalid_json")
    return {name: item for name, item in value.items() if item is not None}


def named_model(values: JSONObject) -> str:
    """The model that a body names. Raises InvalidParameter."""
    name = values.get("model")
    if not isinstance(name, str):
        sent = show(name) if "model" in values else "none"
        raise InvalidParameter(f"`model` must be the name of a model; got {sent}.", param="model")
    return name


@functools.lru_cache(maxsize=1024)
def with_ranges(body: type[R], profile: Profile) -> type[R]:
    """The body's pydantic model for one profile; its JSON schema is the one that the model page shows."""
    parameters = profile.route(body.ROUTE)
    fields: Any = {name: parameter.field() for name, parameter in parameters.items()}
    narrowed: type[R] = create_model(body.__name__, __base__=body, **fields)
    narrowed.PARAMETERS = parameters
    return narrowed


def validate(body: type[B], values: JSONObject) -> B:
    """Raises InvalidParameter, which tells of several faults at once."""
    try:
        return body.model_validate(values)
    except ValidationError as error:
        raise together(_faults(error, body)) from None


def check(
    body: type[R], values: JSONObject, profile: Profile, unknown: UnknownFields = "accept"
) -> tuple[R, tuple[str, ...]]:
    """The request as a frozen object within the profile's ranges, and the names of what was ignored in it.

    Raises InvalidParameter for what is wrong, InvalidRequest(unsupported_parameter) for what can't be honoured; either
    tells of several faults at once.
    """
    model = with_ranges(body, profile)
    values, unusable = model.without_unusable(values)
    if refusals := _refusals(model, values, profile):
        raise together(refusals)
    strangers = _strangers(model, values)
    typos = [error for name in strangers if (error := _typo(name, model, unknown)) is not None]
    try:
        checked = model.model_validate(values)
    except ValidationError as error:
        raise together([*typos, *_faults(error, model)][:ERRORS_MAX]) from None
    if typos:
        raise together(typos[:ERRORS_MAX])
    return checked, (*unusable, *strangers)


def _refusals(model: type[RequestBody], values: JSONObject, profile: Profile) -> list[InvalidRequest]:
    lacking = sorted(name for name in profile.lacks(model.ROUTE) if name in values)
    asked = [
        *model.FIELDS.refusals(values),
        *((name, "this model's page has no such parameter", values[name]) for name in lacking),
        *model.unsupported(values),
    ]
    return [
        InvalidRequest(
            f"`{param}` can't be honoured: {reason}. Leave it out; got {show(sent)}.",
            code="unsupported_parameter",
            param=param,
        )
        for param, reason, sent in asked[:ERRORS_MAX]
    ]


def _strangers(model: type[RequestBody], values: JSONObject) -> list[str]:
    """The unknown fields at the top level. Raises InvalidParameter where there are very many."""
    known = _known(model)
    strangers = [name for name in values if name not in known]
    if len(strangers) > UNKNOWN_MAX:
        raise InvalidParameter(
            f"The body has {len(strangers)} fields that are not known here, {show(strangers[0])} the first; at most "
            f"{UNKNOWN_MAX} such fields are passed over."
        )
    return strangers


@functools.lru_cache(maxsize=1024)
def _known(model: type[RequestBody]) -> frozenset[str]:
    declared = {field.alias or name for name, field in model.model_fields.items()}
    return frozenset(declared | model.FIELDS.names)


def _typo(name: str, model: type[RequestBody], unknown: UnknownFields) -> InvalidParameter | None:
    """A name so near to a known one that it must be meant, or any where unknown fields are refused."""
    meant = _called_here(name, model) or nearest(name, _known(model), cutoff=0.85)
    if meant is None and unknown == "accept" and name not in parameter_names():
        return None
    hint = f"Did you mean `{meant}`?" if meant is not None else "Remove it."
    return InvalidParameter(f"There is no field `{shorten(name, 80)}` on this route. {hint}", param=name)


def _called_here(name: str, model: type[RequestBody]) -> str | None:
    """The name on this route of a parameter that other routes call `name`."""
    for names in SYNONYMS:
        if name in names:
            return next((here for here in names if here in model.PARAMETERS), None)
    return None


def _faults(error: ValidationError, model: type[Body]) -> list[InvalidParameter]:
    """One for each field, an unknown field first: it explains the missing one beside it."""
    faults = error.errors(include_url=False)
    faults.sort(key=lambda fault: fault["type"] != "extra_forbidden")
    told: dict[str, InvalidParameter] = {}
    for fault in faults:
        if len(told) == ERRORS_MAX:
            break
        field = field_path(fault["loc"])
        if field not in told:
            told[field] = _explain(fault, model)
    return list(told.values())


def _explain(fault: ErrorDetails, body: type[Body]) -> InvalidParameter:
    parameters = body.PARAMETERS if issubclass(body, RequestBody) else {}
    path = field_path(fault["loc"])
    top = str(fault["loc"][0]) if fault["loc"] else ""
    sent = show(fault["input"])
    match fault["type"]:
        case "extra_forbidden":
            known = body.model_fields if len(fault["loc"]) == 1 else ()
            near = nearest(str(fault["loc"][-1]), known)
            hint = f" Did you mean `{near}`?" if near is not None else " Remove it."
            message = f"There is no field `{shorten(path, 80)}`.{hint}"
        case "union_tag_invalid" | "union_tag_not_found":
            return _wrong_role(path, fault["input"])
        case "conflict":
            context = fault.get("ctx", {})
            return InvalidParameter(str(context["reason"]), param=str(context["param"]))
        case "missing":
            message = f"`{path}` is missing; it is required."
        case "value_error" if (reason := fault.get("ctx", {}).get("error")) is not None:
            message = f"`{path}` is wrong: {reason} Got {sent}."
        case "too_long" | "list_type" if top in parameters and len(fault["loc"]) == 1:
            message = f"`{top}` must be {parameters[top].allowed(top)}; got {sent}."
        case _ if top in parameters and parameters[top].kind not in ("strings", "tokens") and len(fault["loc"]) <= 2:
            message = f"`{top}` must be {parameters[top].allowed(top)}; got {sent}."
        case "string_type":
            message = f"`{path}` must be a string; got {sent}."
        case "bool_type":
            message = f"`{path}` must be true or false; got {sent}."
        case "list_type" | "tuple_type":
            message = f"`{path}` must be a list; got {sent}."
        case "dict_type" | "model_type" | "model_attributes_type":
            message = f"`{path}` must be an object; got {sent}."
        case "finite_number":
            message = f"`{path}` is beyond the numbers that can be computed with, which go up to 1.8e308."
        case "literal_error":
            message = f"`{path}` must be {fault.get('ctx', {}).get('expected', 'another value')}; got {sent}."
        case _:
            message = f"`{path}` is wrong: {fault['msg'].rstrip('.')}; got {sent}."
    return InvalidParameter(message, param=path)


def _wrong_role(path: str, message: object) -> InvalidParameter:
    if not isinstance(message, dict):
        return InvalidParameter(
            f"`{path}` must be an object with `role` and `content`; got {show(message)}.", param=path
        )
    roles = "system, developer, user, assistant or tool"
    sent = show(message["role"]) if "role" in message else "none"
    return InvalidParameter(f"`{path}.role` must be {roles}; got {sent}.", param=f"{path}.role")


def field_path(location: tuple[int | str, ...]) -> str:
    """`("messages", 2, "role")` -> `messages[2].role`; pydantic's own names of union members are left out."""
    path = ""
    for index, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif index == 0:
            path = part
        elif _is_field(part):
            path += f".{part}"
    return path


def _is_field(part: str) -> bool:
    # Tags of discriminated unions are marked with a colon below, names of types hold brackets or capitals.
    return ":" not in part and "[" not in part and part not in NESTING_NAMES and not part[:1].isupper()

"""From a raw body to a frozen, valid object, or one clear error that names the field.

Pydantic does the checking; this file turns its findings into our sentences: which field, what was sent, what is
allowed. Nothing is clamped, coerced or ignored.
"""

import difflib
import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, create_model, model_validator
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, from_json

from gateway.errors import InvalidParameter, InvalidRequest, shorten, show
from gateway.parameters import Parameter
from gateway.protocol.schema import JSONSchema, describe_nulls

JSONObject = dict[str, object]
Unsupported = tuple[str, str, object]  # the field, why not, and what was sent
# Pydantic's names of a union's members; the last ones are those of JsonValue.
NESTING_NAMES = {"function-wrap", "function-before", "function-after", "str", "nullable", "dict", "list", "float"}


class Body(BaseModel):
    """Base of every request body and its parts: frozen, strict, no field that nobody knows; null means absent.

    `RULES` says in JSON Schema what the validators of the class demand of more than one field; `NO_CALLS` is the
    `tool_choice` that lets a model without tool calling be sent tools.
    """

    # JSON's 1e400 is read as infinity, which no answer could say again: refused wherever it stands.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False)

    RULES: ClassVar[tuple[JSONSchema, ...]] = ()
    NO_CALLS: ClassVar[JSONSchema] = {"const": "none"}

    @classmethod
    def unsupported(cls, values: JSONObject) -> Iterator[Unsupported]:
        """What the body as it was sent asks for and can't get, whatever else is right or wrong with it."""
        return openai_unsupported(values)

    @model_validator(mode="before")
    @classmethod
    def _as_sent(cls, value: object) -> object:
        """Without nulls: SDKs send a message back as they got it, with nulls for what it doesn't have.

        One field that nobody knows is enough to tell of: a million of them would make a million errors.
        """
        if not isinstance(value, dict):
            return value
        sent = {name: item for name, item in value.items() if item is not None}
        if len(sent) <= len(cls.__pydantic_fields__):  # `model_fields` without its property, for every message
            return sent
        names = {field.alias or name for name, field in cls.model_fields.items()}
        unknown = next(name for name in sent if name not in names)
        return {name: item for name, item in sent.items() if name in names or name == unknown}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JSONSchema:
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        describe_nulls(schema)
        if rules := [rule for base in cls.__mro__ for rule in vars(base).get("RULES", ())]:
            schema["allOf"] = rules
        return reference


B = TypeVar("B", bound=Body)

# Fields of OpenAI's API that would change the answer and can't be honoured, with the reason.
REFUSED = {
    "audio": "this model writes text only",
    "web_search_options": "this gateway doesn't search the web",
    "suffix": "this model doesn't fill in the middle",
    "prediction": "predicted outputs are not supported",
    "functions": "it was replaced by `tools`",
    "function_call": "it was replaced by `tool_choice`",
    "verbosity": "this model has no such setting",
    "prompt_cache_retention": "the prefix cache keeps what fits",
}


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


@functools.lru_cache(maxsize=256)
def _with_ranges(body: type[B], parameters: tuple[tuple[str, Parameter], ...]) -> type[B]:
    """The body's model, its numbers narrowed to a profile's ranges. Made once for each profile."""
    fields: Any = {
        name: parameter.field(body.model_fields[name]) for name, parameter in parameters if name in body.model_fields
    }
    narrowed: type[B] = create_model(body.__name__, __base__=body, **fields)
    return narrowed


def with_ranges(body: type[B], parameters: Mapping[str, Parameter]) -> type[B]:
    """The body's pydantic model for one profile; its JSON schema is the one that the model page shows."""
    return _with_ranges(body, tuple(sorted(parameters.items())))


def validate(body: type[B], values: JSONObject, parameters: Mapping[str, Parameter]) -> B:
    """The request as a frozen object within the profile's ranges.

    Raises InvalidParameter for the first fault, InvalidRequest(unsupported_parameter) for what can't be honoured.
    """
    _refuse_unsupported(body, values)
    try:
        return with_ranges(body, parameters).model_validate(values)
    except ValidationError as error:
        raise _explain(first_fault(error), body, parameters) from None


def first_fault(error: ValidationError) -> ErrorDetails:
    """The one to tell: a field that doesn't exist explains the missing one beside it."""
    faults = error.errors(include_url=False)
    return next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])


def conflict(param: str, reason: str) -> PydanticCustomError:
    """What a validator of a whole body raises: a sentence about `param` and another field."""
    return PydanticCustomError("conflict", "{reason}", {"param": param, "reason": reason})


def openai_unsupported(values: JSONObject) -> Iterator[Unsupported]:
    """What no OpenAI route of this gateway can honour."""
    yield from refused_fields(values, REFUSED)
    if values.get("store") is True:
        yield "store", "this gateway keeps no answers", True
    if values.get("modalities", ["text"]) != ["text"]:
        yield "modalities", "this model writes text only", values["modalities"]
    if values.get("service_tier", "auto") not in ("auto", "default"):
        yield "service_tier", "there is one tier, `auto` or `default`", values["service_tier"]


def refused_fields(values: JSONObject, reasons: Mapping[str, str]) -> Iterator[Unsupported]:
    """Of the fields that can't be honoured with whatever value, those that were sent."""
    return ((name, reason, values[name]) for name, reason in reasons.items() if name in values)


def _refuse_unsupported(body: type[Body], values: JSONObject) -> None:
    for param, reason, sent in body.unsupported(values):
        raise InvalidRequest(
            f"`{param}` can't be honoured: {reason}. Leave it out; got {show(sent)}.",
            code="unsupported_parameter",
            param=param,
        )


def _explain(fault: ErrorDetails, body: type[Body], parameters: Mapping[str, Parameter]) -> InvalidParameter:
    path = field_path(fault["loc"])
    top = str(fault["loc"][0]) if fault["loc"] else ""
    sent = show(fault["input"])
    match fault["type"]:
        case "extra_forbidden":
            known = body.model_fields if len(fault["loc"]) == 1 else ()
            near = difflib.get_close_matches(str(fault["loc"][-1])[:80], known, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else " Remove it."
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
        case _ if top in parameters and parameters[top].kind != "list" and len(fault["loc"]) <= 2:
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

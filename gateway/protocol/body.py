"""What request bodies are made of: frozen, strict, with null for absent.

`Body` is the base of every body and its parts, `StrictBody` of those that take no unknown field, and
`RequestBody` of the bodies that ask a model for something.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, PrivateAttr, model_validator
from pydantic_core import CoreSchema, PydanticCustomError

from engine.base import Sampling
from gateway.errors import InvalidParameter
from gateway.models.parameters import Parameter, Route
from gateway.protocol.fields import EMPTY, NO_FIELDS, FieldTable, Unsupported
from gateway.protocol.schema import JSONSchema, describe_nulls, describe_strictness

JSONObject = dict[str, object]
R = TypeVar("R", bound="RequestBody")


class Body(BaseModel):
    """A body or a part of one. A field that is not declared is left out of the object: within messages, tools and
    items it is what other servers put there.

    `RULES` says in JSON Schema what the validators of the class demand of more than one field; `EMPTIES` are the fields
    where an empty value means absent.
    """

    # JSON's 1e400 is read as infinity, which no answer could say again: refused wherever it is.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True, allow_inf_nan=False)

    RULES: ClassVar[tuple[JSONSchema, ...]] = ()
    EMPTIES: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _as_sent(cls, value: object) -> object:
        """Without nulls: SDKs send a message back as they got it, with nulls for what it doesn't have."""
        if not isinstance(value, dict):
            return value
        empties = cls.EMPTIES
        if not empties and None not in value.values():
            return value
        return {
            name: item for name, item in value.items() if item is not None and not (name in empties and item in EMPTY)
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JSONSchema:
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        describe_nulls(schema, cls.EMPTIES)
        if cls.model_config.get("extra") == "forbid":
            describe_strictness(schema)
        if rules := [rule for base in cls.__mro__ for rule in vars(base).get("RULES", ())]:
            schema["allOf"] = rules
        cls._describe(schema)
        return reference

    @classmethod
    def _describe(cls, schema: JSONSchema) -> None:
        """Adds to the JSON schema what pydantic can't know."""


class StrictBody(Body):
    """One that takes no unknown field: administration, and query strings."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _one_unknown_field(cls, value: object) -> object:
        """One is enough to tell of: a million of them would make a million errors."""
        if not isinstance(value, dict) or len(value) <= len(cls.model_fields):
            return value
        names = {field.alias or name for name, field in cls.model_fields.items()}
        unknown = next(name for name in value if name not in names)
        return {name: item for name, item in value.items() if name in names or name == unknown}


class Query(StrictBody):
    """Base of what comes in the query string, where everything is text."""

    model_config = ConfigDict(strict=False)


class RequestBody(Body):
    """The body of a route that asks a model for something.

    `ROUTE` is the route whose sampling parameters it has, and `PARAMETERS` are those of one profile; `FIELDS` says what
    becomes of the fields that are neither declared nor parameters; `NO_CALLS` is the `tool_choice` that lets a model
    without tool calling be sent tools. `PROMPT` names fields that nothing reads once `prompt_source` has been made.
    """

    ROUTE: ClassVar[Route]
    FIELDS: ClassVar[FieldTable] = NO_FIELDS
    NO_CALLS: ClassVar[JSONSchema] = {"const": "none"}
    PARAMETERS: ClassVar[Mapping[str, Parameter]] = {}
    PROMPT: ClassVar[frozenset[str]] = frozenset()

    _made: Any = PrivateAttr(None)

    @classmethod
    def unsupported(cls, values: JSONObject) -> Iterator[Unsupported]:
        """What the body as it was sent asks for and can't get, beside what `FIELDS` refuses."""
        return iter(())

    @classmethod
    def without_unusable(cls, values: JSONObject) -> tuple[JSONObject, tuple[str, ...]]:
        """The body without the parts that this server can't act on and that change nothing, and their names."""
        return values, ()

    @classmethod
    def remade(cls: type[R], fields: Mapping[str, Any], fields_set: Collection[str], made: object) -> R:
        """A body that was checked in another process, without `PROMPT`; `made` is its `prompt_source`."""
        body = cast(R, cls.model_construct(set(fields_set), **fields))
        body._made = made
        return body

    def prompt_source(self) -> Any:
        """What the prompt is made from. Of a large body it was made in another process, and `PROMPT` isn't here."""
        return self._made if self._made is not None else self.make_prompt_source()

    def make_prompt_source(self) -> Any:
        """For a body whose prompt takes work to prepare."""
        return None

    def sampling(self, max_tokens: int, **more: object) -> Sampling:
        """How to choose tokens: this body's parameters by the engine's names, and what else the route has."""
        if getattr(self, "min_tokens", 0) > max_tokens:
            raise InvalidParameter(
                f"`min_tokens` must be at most the tokens that may be generated, which are {max_tokens}; got "
                f"{getattr(self, 'min_tokens', 0)}.",
                param="min_tokens",
            )
        given = self.model_fields_set
        values = {
            str(row.engine): getattr(self, name)
            for name, row in self.PARAMETERS.items()
            if row.engine != "" and (row.default is not None or name in given)
        }
        return Sampling.of(max_tokens, {**values, **more})

    @property
    def streamed(self) -> bool:
        """Whether the answer comes as events."""
        return getattr(self, "stream", False) is True

    @property
    def tier(self) -> str | None:
        """What was asked for as `service_tier`; None where it is the key's to say."""
        asked: str | None = getattr(self, "service_tier", None)
        return asked

    def alternatives(self) -> int:
        """How many log probabilities each step of the answer has beside those of its tokens, over all choices."""
        return 0

    @classmethod
    def _describe(cls, schema: JSONSchema) -> None:
        cls.FIELDS.describe(schema)


def field_of(value: object, name: str) -> object:
    """Of a part of a body, before or after it has been parsed."""
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def conflict(param: str, reason: str) -> PydanticCustomError:
    """What a validator of a whole body raises: a sentence about `param` and another field."""
    return PydanticCustomError("conflict", "{reason}", {"param": param, "reason": reason})

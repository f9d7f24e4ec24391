"""What a chat request's answer is held to: `response_format`, and vLLM's `structured_outputs`."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from engine.base import ResponseFormat
from gateway.protocol.body import Body
from gateway.protocol.schema import SENT, JSONSchema, implies, one_of_fields


class JSONSchemaFormat(Body):
    name: str | None = None
    description: str | None = None
    json_schema: dict[str, JsonValue] | None = Field(None, alias="schema")
    strict: bool | None = None


class Format(Body):
    """`{"type": "json_object"}`, or json_schema with its schema, or regex with its pattern."""

    type: Literal["text", "json_object", "json_schema", "regex"]
    json_schema: JSONSchemaFormat | None = None
    regex: str | None = None
    pattern: str | None = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        implies(
            {"type": {"const": "json_schema"}},
            {"json_schema": {"type": "object", "properties": {"schema": SENT}, "required": ["schema"]}},
        ),
        {
            "if": {"properties": {"type": {"const": "regex"}}},
            "then": one_of_fields({"type": "string", "minLength": 1}, "regex", "pattern"),
        },
    )

    @model_validator(mode="after")
    def _complete(self) -> "Format":
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.json_schema is None):
            raise ValueError("the type json_schema needs `json_schema.schema`.")
        if self.type == "regex" and not (self.regex or self.pattern):
            raise ValueError("the type regex needs `regex`.")
        return self

    def constraint(self) -> ResponseFormat | None:
        match self.type:
            case "text":
                return None
            case "json_object":
                return ResponseFormat("json_object")
            case "json_schema":
                schema = self.json_schema.json_schema if self.json_schema is not None else None
                return ResponseFormat("json_schema", json_schema=schema, place="response_format.json_schema.schema")
            case "regex":
                field = "regex" if self.regex else "pattern"
                return ResponseFormat("regex", regex=self.regex or self.pattern, place=f"response_format.{field}")


Choices = Annotated[list[Annotated[str, Field(min_length=1)]], Field(fail_fast=True, min_length=1, max_length=1024)]


class StructuredOutputs(Body):
    """vLLM's way to ask for a structure: exactly one of these."""

    json_schema: dict[str, JsonValue] | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: str | None = Field(None, min_length=1)
    choice: (
        Annotated[list[Annotated[str, Field(min_length=1)]], Field(fail_fast=True, min_length=1, max_length=1024)]
        | None
    ) = None

    RULES: ClassVar[tuple[JSONSchema, ...]] = (
        {
            "oneOf": [
                {"properties": {name: SENT if name != "json_object" else {"const": True}}, "required": [name]}
                for name in ("json", "json_object", "regex", "choice")
            ]
        },
    )

    @model_validator(mode="after")
    def _one(self) -> "StructuredOutputs":
        asked = (self.json_schema is not None, self.json_object is True, self.regex is not None, bool(self.choice))
        if sum(asked) != 1:
            raise ValueError("it needs exactly one of `json`, `json_object: true`, `regex` and `choice`.")
        return self

    def constraint(self) -> ResponseFormat:
        if self.json_schema is not None:
            return ResponseFormat("json_schema", json_schema=self.json_schema, place="structured_outputs.json")
        if self.choice is not None:
            choices = "|".join(f"({re.escape(one)})" for one in self.choice)
            return ResponseFormat("regex", regex=choices, place="structured_outputs.choice")
        if self.regex is not None:
            return ResponseFormat("regex", regex=self.regex, place="structured_outputs.regex")
        return ResponseFormat("json_object", place="structured_outputs")


CONSTRAINT: JSONSchema = {
    "type": "object",
    "properties": {"type": {"not": {"const": "text"}}},
    "required": ["type"],
}

"""Loaded by the schemathesis command (SCHEMATHESIS_HOOKS): what JSON Schema can't say is put right in valid cases.

The descriptions say it: 1.0 is no integer, two names of one number must agree, a named function must be among the
tools, `best_of` must equal `n`, token ids are the model's, `until` isn't before `since`, an empty prompt needs a model
with a first token, a cursor is the id of a model. Webhooks are left out, since a valid one is a call to a made-up host.
"""

from typing import Any

import schemathesis
from schemathesis import GenerationMode

ITEMS_MAX = 64


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Without bounds that only megabytes break, which would be refused for their size, and without hints, which may be
    anything: other tests send both."""
    lighten(raw_schema)


def lighten(schema: Any) -> None:
    if isinstance(schema, list):
        for item in schema:
            lighten(item)
    if not isinstance(schema, dict):
        return
    for bound in ("maxItems", "maxProperties", "maxLength"):
        if isinstance(schema.get(bound), int) and schema[bound] > ITEMS_MAX:
            del schema[bound]
    properties = schema.get("properties")
    if isinstance(properties, dict):
        for name in [
            name for name, field in properties.items() if isinstance(field, dict) and set(field) == {"description"}
        ]:
            del properties[name]
    for item in schema.values():
        lighten(item)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    case.body = with_plain_integers(case.body)
    if case.path.startswith("/admin") and case.method != "GET" and "id" in case.path_parameters:
        spare_the_first(case.path_parameters)
    if case.query.get("until") and case.query.get("since"):
        del case.query["until"]
    if case.path.endswith("/models"):
        for cursor in ("before_id", "after_id"):
            case.query.pop(cursor, None)
    if "user" in case.query or "user" in str(case.query.get("by")):  # end users are told apart by the day
        case.query.pop("by", None)
    body = case.body
    if not isinstance(body, dict) or case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    for name in ("webhook", "best_of", "max_completion_tokens"):
        body.pop(name, None)
    if case.path.startswith("/v1/inference"):  # which of the two bodies it is depends on the model in the path
        for name in ("min_p", "seed"):
            body.pop(name, None)
    if "prompt" in body:
        body["prompt"] = plain_prompt(body["prompt"])
    if "requests" in body and isinstance(body["requests"], list):  # each of a batch has a name of its own
        for number, one in enumerate(body["requests"]):
            if isinstance(one, dict) and "custom_id" in one:
                one["custom_id"] = str(number)
    if "tokens" in body:
        body["tokens"] = plain_prompt(body["tokens"])
    name_the_first_tool(body)


def spare_the_first(parameters: dict[str, Any]) -> None:
    """The accounts and keys that this run works with must not be suspended, revoked or limited by it."""
    if str(parameters["id"]) in ("0", "1", "2", "3"):
        parameters["id"] = 4


def name_the_first_tool(body: dict[str, Any]) -> None:
    """OpenAI's chat names a function in an object of its own, Responses and Messages beside the type."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    if isinstance(choice, dict) and tools:
        wanted, first = choice.get("function", choice), tools[0].get("function", tools[0])
        if "name" in wanted and "name" in first:
            wanted["name"] = first["name"]


def plain_prompt(prompt: Any) -> Any:
    """Token ids that any vocabulary has, and texts that aren't empty."""
    match prompt:
        case int():
            return prompt % 1000
        case list():
            return [plain_prompt(item) for item in prompt]
        case "":
            return "a"
        case _:
            return prompt


def with_plain_integers(value: Any) -> Any:
    match value:
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case dict():
            return {name: with_plain_integers(item) for name, item in value.items()}
        case list():
            return [with_plain_integers(item) for item in value]
        case _:
            return value

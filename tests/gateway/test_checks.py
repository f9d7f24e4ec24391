"""Every parameter of every profile, at, just inside and just outside its bounds, and with what JSON can hold."""

import json
from decimal import Decimal
from typing import Any

import pytest

from gateway.errors import GatewayError, InvalidParameter, InvalidRequest
from gateway.models.parameters import Parameter, shipped_profiles
from gateway.protocol.chat import ChatBody
from gateway.protocol.checks import parse_json, with_ranges
from tests.gateway.checking import validate

MINIMAL: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello!"}]}
COMPANIONS = {"top_logprobs": {"logprobs": True}}

NUMBERS = [
    (profile, name, parameter)
    for profile in shipped_profiles().values()
    for name, parameter in profile.route("chat").items()
    if parameter.kind in ("number", "integer")
]


def parse(profile: str, name: str, literal: str) -> Any:  # its parameters are those of the profile
    body = json.dumps(MINIMAL | COMPANIONS.get(name, {}))
    raw = f'{body[:-1]}, "{name}": {literal}}}'.encode()
    return validate(ChatBody, parse_json(raw), shipped_profiles()[profile])


def step(parameter: Parameter) -> Decimal:
    return Decimal(1) if parameter.kind == "integer" else Decimal("0.0001")


def inside(parameter: Parameter) -> list[Decimal]:
    values = []
    if parameter.minimum is not None:
        values += [Decimal(str(parameter.minimum)), Decimal(str(parameter.minimum)) + step(parameter)]
    if parameter.above is not None:
        values.append(Decimal(str(parameter.above)) + step(parameter))
    if parameter.maximum is not None:
        values += [Decimal(str(parameter.maximum)), Decimal(str(parameter.maximum)) - step(parameter)]
    if parameter.below is not None:
        values.append(Decimal(str(parameter.below)) - step(parameter))
    return values


def outside(parameter: Parameter) -> list[Decimal]:
    values = []
    if parameter.minimum is not None:
        values.append(Decimal(str(parameter.minimum)) - step(parameter))
    if parameter.above is not None:
        values += [Decimal(str(parameter.above)), Decimal(str(parameter.above)) - step(parameter)]
    if parameter.maximum is not None:
        values.append(Decimal(str(parameter.maximum)) + step(parameter))
    if parameter.below is not None:
        values += [Decimal(str(parameter.below)), Decimal(str(parameter.below)) + step(parameter)]
    return [value for value in values if value not in parameter.off]


@pytest.mark.parametrize(("profile", "name", "parameter"), NUMBERS, ids=lambda value: getattr(value, "name", ""))
def test_bounds_are_the_pages(profile: object, name: str, parameter: Parameter) -> None:
    profile_name = profile.name  # type: ignore[attr-defined]
    assert inside(parameter), "a parameter without bounds can't be checked"
    exactly = int if parameter.kind == "integer" else float
    for value in inside(parameter):
        assert getattr(parse(profile_name, name, str(value)), name) == exactly(value)
    for value in outside(parameter):
        with pytest.raises(InvalidParameter) as caught:
            parse(profile_name, name, str(value))
        assert caught.value.param == name
        assert parameter.allowed(name) in caught.value.message


@pytest.mark.parametrize("literal", ["1e400", "-1e400", '"1"', "true", "[1]", "{}", "1.5e999999"])
@pytest.mark.parametrize(("profile", "name", "parameter"), NUMBERS, ids=lambda value: getattr(value, "name", ""))
def test_what_is_no_number_in_range_is_refused(profile: object, name: str, parameter: Parameter, literal: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse(profile.name, name, literal)  # type: ignore[attr-defined]
    assert caught.value.param == name


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "01", "1.", "+1"])
def test_what_is_not_json_is_refused_as_such(literal: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse("llama3-turbo", "temperature", literal)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize(("profile", "name", "parameter"), NUMBERS, ids=lambda value: getattr(value, "name", ""))
def test_null_means_absent(profile: object, name: str, parameter: Parameter) -> None:
    default = getattr(parse(profile.name, name, "null"), name)  # type: ignore[attr-defined]
    assert default == parameter.default


@pytest.mark.parametrize("literal", ["1.0", "1.5"])
def test_an_integer_takes_no_fraction(literal: str) -> None:
    with pytest.raises(InvalidParameter, match="an integer"):
        parse("llama3-turbo", "top_k", literal)


def test_the_seed_ranges_differ_as_the_pages_do() -> None:
    assert parse("llama3-turbo", "seed", str(2**63 - 1)).seed == 2**63 - 1
    assert parse("llama3-turbo-8b", "seed", str(2**64 - 1)).seed == 2**64 - 1
    assert parse("llama3-turbo-8b", "seed", str(-(2**63))).seed == -(2**63)
    with pytest.raises(InvalidParameter):
        parse("llama3-turbo", "seed", "-1")


@pytest.mark.parametrize(("profile", "most"), [("llama3-turbo", 16), ("llama2-chat", 4)])
def test_stop_has_its_number_of_sequences(profile: str, most: int) -> None:
    assert parse(profile, "stop", '"one"').stop == ["one"]
    assert len(parse(profile, "stop", json.dumps(["x"] * most)).stop) == most
    with pytest.raises(InvalidParameter, match=f"at most {most}"):
        parse(profile, "stop", json.dumps(["x"] * (most + 1)))


@pytest.mark.parametrize(
    ("sent", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": "hello"}, "messages", 'must be a list; got "hello"'),
        ({"messages": [7]}, "messages[0]", "got 7"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "got none"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "user"}]}, "messages[1].content", "is missing"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "a string or a list"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content",
            "reads text only",
        ),
        ({"messages": [{"role": "assistant"}]}, "messages[0]", "`content` or `tool_calls`"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "is missing"),
        ({"tools": [{"type": "functions"}]}, "tools[0]", "type function or custom"),
        ({"tools": [{"name": "f"}]}, "tools[0]", "type function or custom"),
        ({"tool_choice": "any"}, "tool_choice", '"required"'),
        ({"tool_choice": "required"}, "tool_choice", "`tools` holds none"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'json_object'"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "needs `json_schema.schema`"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs `stream: true`"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "mean the same"),
        ({"max_token": 5}, "max_token", "Did you mean `max_tokens`?"),
        ({"max_new_tokens": 5}, "max_new_tokens", "Did you mean `max_tokens`?"),
        ({"stop_sequences": ["x"]}, "stop_sequences", "Did you mean `stop`?"),
        ({"continue_final_message": True}, "continue_final_message", "the last one is the user's"),
        ({"structured_outputs": {"regex": "a", "json_object": True}}, "structured_outputs", "exactly one"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x", "x"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "100"),
        ({"stream": "yes"}, "stream", "true or false"),
    ],
)
def test_the_error_names_field_and_what_is_allowed(sent: dict[str, object], param: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        validate(ChatBody, MINIMAL | sent, shipped_profiles()["llama3-turbo"])
    assert caught.value.param == param
    assert words in caught.value.message


@pytest.mark.parametrize(
    "sent",
    [
        {"audio": {"voice": "a"}},
        {"modalities": ["text", "audio"]},
        {"prediction": {"type": "content"}},
        {"store": True},
        {"service_tier": "scale"},
        {"functions": [{"name": "f"}]},
        {"function_call": {"name": "f"}},
        {"guided_json": {"type": "object"}},
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_reason(sent: dict[str, object]) -> None:
    with pytest.raises(GatewayError) as caught:
        validate(ChatBody, MINIMAL | sent, shipped_profiles()["llama3-turbo"])
    assert (caught.value.status, caught.value.code) == (400, "unsupported_parameter")
    assert caught.value.param == next(iter(sent))


def test_what_changes_no_answer_is_accepted() -> None:
    sent = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "safety_identifier": "s"}
    assert validate(ChatBody, MINIMAL | sent, shipped_profiles()["llama3-turbo"]).user == "u"


def test_an_sdks_message_can_be_sent_back() -> None:
    answer = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    tool = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "7"}]}
    body = validate(
        ChatBody,
        MINIMAL | {"messages": [*MINIMAL["messages"], answer, tool]},
        shipped_profiles()["llama3-turbo"],
    )
    assert [message.role for message in body.messages] == ["user", "assistant", "tool"]


def test_the_schema_shows_the_ranges_that_are_checked() -> None:
    profile = shipped_profiles()["llama3-turbo"]
    properties = with_ranges(ChatBody, profile).model_json_schema()["properties"]
    assert properties["temperature"]["minimum"] == 0
    assert properties["temperature"]["maximum"] == 2
    assert properties["top_p"]["exclusiveMinimum"] == 0
    assert properties["top_k"]["exclusiveMaximum"] == 1000
    assert properties["stop"]["anyOf"][1]["maxItems"] == 16

"""Answers that are held to a schema or an expression, on an engine that has seen no such request before."""

import json
import re
import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import jsonschema
import pytest

from engine.base import ChatFormat, Conversation, EngineSpec, GenerationRequest, ResponseFormat, Sampling
from engine.demo import MODEL_DIR
from engine.embedded import EmbeddedEngine
from engine.errors import EngineStartError, GenerationFailed, PromptError, UnsupportedFeature
from engine.grammar.tried import GrammarLimits
from engine.rendering import rendered
from tests.engine.conftest import LLAMA, arguments_of, chat, read, text_of

PLACE = "response_format.json_schema.schema"
PLAIN: dict[str, Any] = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "size": {"type": "integer", "minimum": 1, "maximum": 3}},
    "required": ["colour", "size"],
}
# With vLLM's own choice of a backend, the first of these decided for all requests that came after it.
REFUSED: list[dict[str, Any]] = [
    {"properties": {"k": {"type": "string"}}, "patternProperties": {"^x": {"type": "string"}, "^b": {}}},
    {"type": "string", "pattern": "^a+$", "maxLength": 5},
    {"allOf": [{"type": "object"}, {"required": ["a"]}]},
    {"if": {"type": "string"}, "then": {"minLength": 3}},
    {"not": {"type": "string"}},
    {"type": "string", "pattern": "^(?!a).*$"},
    {"properties": {"a": False}},
    {"type": "array", "items": [{"type": "string"}]},
    {"type": "string", "minLength": -1},
    {"$ref": "#"},
    {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}},
    {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}}},
]
EXPRESSIONS = ["(?P<y>[0-9]{4})", "(?i)yes", "(?s).", r"\p{L}+", "foo**", "a++", "a{1000}{1000}", "(unclosed"]
EVIL = "((a|b){0,130}){0,130}"

THING: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
NAMED = {"type": "function", "function": {"name": "Thing"}}
_numbers = count()


@pytest.fixture(scope="module")
async def fresh() -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine(EngineSpec(str(MODEL_DIR), grammars=GrammarLimits(seconds=2.0)))
    await engine.start()
    yield engine
    await engine.stop()


def tool(parameters: dict[str, Any] | None, name: str = "Thing", **fields: object) -> dict[str, Any]:
    schema = {} if parameters is None else {"parameters": parameters}
    return {"type": "function", "function": {"name": name, **schema, **fields}}


async def answer(engine: EmbeddedEngine, chat_format: ChatFormat = LLAMA, seed: int = 1, **fields: object) -> Any:
    prompt = await chat(engine, "Hello there, who are you?", chat_format, **fields)
    request = GenerationRequest(f"held-{next(_numbers)}", prompt, Sampling(max_tokens=200, seed=seed), stream=False)
    return await read(await engine.generate(request))


def of_schema(schema: dict[str, Any]) -> ResponseFormat:
    return ResponseFormat("json_schema", json_schema=schema, place=PLACE)


async def test_no_request_decides_how_others_are_answered(fresh: EmbeddedEngine) -> None:
    """All that can't be kept first; and all that can, after each of them."""
    for schema in REFUSED:
        with pytest.raises(PromptError) as caught:
            await answer(fresh, response_format=of_schema(schema))
        assert caught.value.param.startswith(PLACE)
        assert not isinstance(caught.value, GenerationFailed)
        assert isinstance(json.loads(text_of(await answer(fresh, response_format=ResponseFormat("json_object")))), dict)
        jsonschema.validate(json.loads(text_of(await answer(fresh, response_format=of_schema(PLAIN)))), PLAIN)
        called = await answer(fresh, tools=[tool(THING)], tool_choice="required")
        jsonschema.validate(json.loads(arguments_of(called)), THING)


@pytest.mark.parametrize("expression", EXPRESSIONS)
async def test_an_expression_that_cannot_be_kept_is_the_clients_error(fresh: EmbeddedEngine, expression: str) -> None:
    wanted = ResponseFormat("regex", regex=expression, place="response_format.regex")
    for prompt in (chat(fresh, "Hello!", response_format=wanted), text(fresh, wanted)):
        with pytest.raises(PromptError) as caught:
            await prompt
        assert caught.value.param == "response_format.regex"


async def text(engine: EmbeddedEngine, wanted: ResponseFormat) -> object:
    return await engine.renderer(LLAMA).text("Hello!", wanted)


async def test_the_keyword_and_its_place_are_named(fresh: EmbeddedEngine) -> None:
    with pytest.raises(
        UnsupportedFeature, match=r"`response_format\.json_schema\.schema\.properties\.tags\.uniqueItems`"
    ):
        await answer(fresh, response_format=of_schema(REFUSED[-1]))


async def test_a_costly_schema_is_no_work_for_the_event_loop_or_the_engine(fresh: EmbeddedEngine) -> None:
    schemas: list[dict[str, Any]] = [
        {"properties": {name: {"type": "string", "pattern": f"{EVIL}{mark}"} for name in "abc"}} for mark in ("", "x")
    ] + [{"type": "string", "minLength": 100_000}, {"enum": [f"value {number}" for number in range(9000)]}]
    before = time.thread_time()
    for schema in schemas:
        for _ in range(2):
            with pytest.raises(UnsupportedFeature):
                await answer(fresh, response_format=of_schema(schema))
    assert time.thread_time() - before < 0.4  # the trials took ten times as long, in their process
    assert fresh._loaded is not None
    tried = fresh._loaded.constraining.trials.tried
    with pytest.raises(UnsupportedFeature):
        await answer(fresh, response_format=of_schema(schemas[0]))
    assert fresh._loaded.constraining.trials.tried == tried


async def test_a_schema_of_a_megabyte_is_not_even_written_down(fresh: EmbeddedEngine) -> None:
    for large in ({"enum": ["x" * 2**20]}, {"enum": list(range(300_000))}, {"x" * 2**20: True}):
        with pytest.raises(UnsupportedFeature, match="FAREBOX_GRAMMAR_BYTES_MAX"):
            await answer(fresh, response_format=of_schema(large))  # type: ignore[arg-type]  # JSON


@pytest.mark.parametrize("choice", [NAMED, "required"], ids=["named", "required"])
async def test_forced_calls_keep_to_the_functions_schema(fresh: EmbeddedEngine, choice: Any) -> None:
    calls = 0
    for seed in range(1, 13):
        deltas = await answer(fresh, seed=seed, tools=[tool(THING)], tool_choice=choice)
        if deltas[-1].finish_reason != "length":  # this model may go on writing spaces until it is cut off
            jsonschema.validate(json.loads(arguments_of(deltas)), THING)
            calls += 1
    assert calls > 6


async def test_a_card_may_leave_forced_calls_free(fresh: EmbeddedEngine) -> None:
    free = ChatFormat("llama3_json", hold_forced_calls=False)
    for chat_format, held in ((LLAMA, True), (free, False)):
        prompt = await chat(fresh, "Hello!", chat_format, tools=[tool(THING)], tool_choice="required")
        constraint = rendered(prompt).constraints.structured_outputs
        assert constraint is not None
        assert ("maximum" in str(constraint.structural_tag)) == held


async def test_a_forced_call_of_a_function_without_parameters_has_no_arguments(fresh: EmbeddedEngine) -> None:
    for parameters in (None, {}, {"type": "object", "properties": {}}):
        deltas = await answer(fresh, tools=[tool(parameters, "go")], tool_choice="required")
        assert json.loads(arguments_of(deltas)) == {}


async def test_what_a_loose_function_asks_for_and_cannot_get_is_left_out_and_named(fresh: EmbeddedEngine) -> None:
    tags = {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2, "uniqueItems": True}
    schema = {**THING, "properties": {**THING["properties"], "tags": tags}}
    prompt = await chat(fresh, "Hello!", tools=[tool(schema)], tool_choice=NAMED)
    assert prompt.left_out == ("tools[0].function.parameters.properties.tags.uniqueItems",)
    deltas = await answer(fresh, tools=[tool(schema)], tool_choice=NAMED)
    del tags["uniqueItems"]
    jsonschema.validate(json.loads(arguments_of(deltas)), schema)
    costly = {"properties": {name: {"type": "string", "pattern": f"{EVIL}{name}"} for name in "abcdef"}}
    prompt = await chat(fresh, "Hello!", tools=[tool(THING), tool(costly, "Other")], tool_choice="required")
    assert prompt.left_out == ("tools[1].function.parameters",)


async def test_a_strict_function_whose_schema_cannot_be_kept_is_refused(fresh: EmbeddedEngine) -> None:
    schema = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}
    for choice in ("auto", "required"):
        with pytest.raises(UnsupportedFeature) as caught:
            await answer(fresh, tools=[tool(THING), tool(schema, "Other", strict=True)], tool_choice=choice)
        assert caught.value.param == "tools[1].function.parameters.properties.tags.uniqueItems"
    await answer(fresh, tools=[tool(THING), tool(schema, "Other", strict=True)], tool_choice="none")
    await answer(fresh, tools=[tool(THING), tool(schema, "Other", strict=True)], tool_choice=NAMED)
    await answer(fresh, tools=[tool(schema, "Other")], tool_choice="auto")


async def test_the_prompt_shows_the_tools_as_they_were_sent(fresh: EmbeddedEngine) -> None:
    schema = {**THING, "title": "Thing as it was sent"}
    renderer = fresh.renderer(LLAMA)
    for choice in ("auto", "required"):
        prompt = await renderer.chat(Conversation([{"role": "user", "content": "Hi"}], [tool(schema)], choice))
        shown = str(fresh._loaded.core.renderer.get_tokenizer().decode(rendered(prompt).token_ids))  # type: ignore[union-attr]  # it has started
        assert "Thing as it was sent" in shown
        assert '"maxLength": 8' in shown


async def test_a_strict_call_or_an_answer_of_the_format(fresh: EmbeddedEngine) -> None:
    for seed in range(6):
        deltas = await answer(
            fresh,
            seed=seed,
            tools=[tool(THING, strict=True)],
            tool_choice="auto",
            response_format=of_schema({"properties": {"answer": {"const": 1}}, "required": ["answer"]}),
        )
        if deltas[-1].finish_reason == "length":
            continue
        if arguments := arguments_of(deltas):
            jsonschema.validate(json.loads(arguments), THING)
        else:
            assert json.loads(text_of(deltas)) == {"answer": 1}


async def test_places_are_those_of_the_other_apis(fresh: EmbeddedEngine) -> None:
    conversation = Conversation(
        [{"role": "user", "content": "Hi"}],
        [tool({"not": {}}, strict=True)],
        "auto",
        schema_field="input_schema",
    )
    with pytest.raises(UnsupportedFeature) as caught:
        await fresh.renderer(LLAMA).chat(conversation)
    assert caught.value.param == "tools[0].input_schema.not"


@pytest.mark.parametrize("backend", ["auto", "outlines", "lm-format-enforcer", "none"])
async def test_a_backend_that_requests_cannot_be_checked_for_stops_the_start(backend: str) -> None:
    options = {"structured_outputs_config": {"backend": backend}}
    with pytest.raises(EngineStartError, match="one of xgrammar, guidance"):
        await EmbeddedEngine(EngineSpec(str(MODEL_DIR), options=options)).start()


async def test_the_check_follows_the_cards_backend() -> None:
    options = {"structured_outputs_config": {"backend": "guidance"}}
    engine = EmbeddedEngine(EngineSpec(str(MODEL_DIR), options=options))
    await engine.start()
    try:
        schema = {"type": "string", "pattern": "^a+$", "maxLength": 5}
        assert re.fullmatch("a{1,5}", json.loads(text_of(await answer(engine, response_format=of_schema(schema)))))
        jsonschema.validate(json.loads(text_of(await answer(engine, response_format=of_schema(PLAIN)))), PLAIN)
        with pytest.raises(UnsupportedFeature, match="uniqueItems"):
            await answer(engine, response_format=of_schema(REFUSED[-1]))
        with pytest.raises(UnsupportedFeature, match="guidance"):
            await answer(engine, tools=[tool(THING)], tool_choice="required")
    finally:
        await engine.stop()

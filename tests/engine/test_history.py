"""Answers that come back as history: calls of several functions, and arguments as other servers write them."""

from collections.abc import Sequence

import pytest

from engine.base import ChatFormat, Conversation, JSONValue
from engine.embedded import EmbeddedEngine
from engine.errors import PromptError
from engine.history import Message, calls_apart
from tests.engine.conftest import LLAMA, WEATHER

# Meta's rule, as the templates of Llama 3.1 to 3.3 have it.
ONE_CALL = ChatFormat(
    tool_call_parser="llama3_json",
    chat_template="""{% for m in messages %}{% if m.tool_calls %}
{%- if m.tool_calls | length != 1 %}
{{- raise_exception("This model only supports single tool-calls at once!") }}{% endif -%}
[call {{ m.tool_calls[0].function.arguments.city }}]{% else %}[{{ m.role }} {{ m.content }}]{% endif %}{% endfor %}""",
)
SEVERAL = ChatFormat(
    tool_call_parser="llama3_json",
    chat_template="""{% for m in messages %}{% if m.tool_calls %}[calls
{%- for call in m.tool_calls %} {{ call.function.arguments.city }}{% endfor %}]
{%- else %}[{{ m.role }} {{ m.content }}]{% endif %}{% endfor %}""",
)


def call(number: int, arguments: str) -> dict[str, JSONValue]:
    return {"id": f"c{number}", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


def calls(*cities: str, content: str | None = None) -> dict[str, JSONValue]:
    made = [call(number, f'{{"city": "{city}"}}') for number, city in enumerate(cities)]
    return {"role": "assistant", "content": content, "tool_calls": made}


def result(number: int | None, content: str) -> dict[str, JSONValue]:
    return {"role": "tool", "content": content, **({} if number is None else {"tool_call_id": f"c{number}"})}


USER: dict[str, JSONValue] = {"role": "user", "content": "go"}
BOTH = [USER, calls("Paris", "Rome"), result(0, "sun"), result(1, "rain"), USER]


async def text(engine: EmbeddedEngine, chat_format: ChatFormat, messages: Sequence[Message]) -> str:
    renderer = engine.renderer(chat_format)
    return renderer.prompt_text(await renderer.chat(Conversation(messages, tools=[WEATHER], tool_choice="auto")))


async def test_several_calls_are_laid_out_one_by_one_where_the_template_wants_that(engine: EmbeddedEngine) -> None:
    assert await text(engine, ONE_CALL, BOTH) == "[user go][call Paris][tool sun][call Rome][tool rain][user go]"


async def test_several_calls_stay_together_where_the_template_takes_them(engine: EmbeddedEngine) -> None:
    assert await text(engine, SEVERAL, BOTH) == "[user go][calls Paris Rome][tool sun][tool rain][user go]"


async def test_a_template_that_refuses_either_way_says_why(engine: EmbeddedEngine) -> None:
    refusing = ChatFormat(
        tool_call_parser="llama3_json", chat_template="{{ raise_exception('No calls, ' ~ (messages | length)) }}"
    )
    with pytest.raises(PromptError, match="No calls, 5"):
        await text(engine, refusing, BOTH)


@pytest.mark.parametrize(
    ("messages", "laid_out"),
    [
        ([USER], None),
        ([USER, calls("a")], None),
        ([calls("a", "b")], [calls("a"), calls("", "b")]),
        (
            [calls("a", "b"), result(1, "B"), result(0, "A")],
            [calls("a"), result(0, "A"), calls("", "b"), result(1, "B")],
        ),
        ([calls("a", "b"), result(0, "A")], [calls("a"), result(0, "A"), calls("", "b")]),
        ([calls("a", "b"), result(7, "X")], [calls("a"), calls("", "b"), result(7, "X")]),
        (
            [calls("a", "b"), result(None, "A"), result(None, "B")],
            [calls("a"), result(None, "A"), calls("", "b"), result(None, "B")],
        ),
        ([calls("a", "b", content="Look")], [calls("a", content="Look"), calls("", "b")]),
    ],
)
def test_each_call_is_followed_by_its_results(
    messages: list[Message], laid_out: list[dict[str, JSONValue]] | None
) -> None:
    if laid_out is not None:  # `calls("", "b")` is the second call of two, alone
        for message in laid_out:
            made = message.get("tool_calls")
            if isinstance(made, list) and len(made) == 2:
                message["tool_calls"] = made[1:]
    assert calls_apart(messages) == laid_out


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (r'{"city": "\ud83d"}', "\ufffd"),
        (r'{"city": "\ude00 x"}', "\ufffd x"),
        ('{"city": "\ud83d"}', "\ufffd"),
        (r'{"city": "\ud83d\ude00"}', "\U0001f600"),
        ('{"city": 1e999}', "inf"),
        ('{"city": ', ""),
        ("[1]", ""),
        ("", ""),
    ],
)
async def test_arguments_of_before_are_taken_as_they_can_be(engine: EmbeddedEngine, arguments: str, shown: str) -> None:
    made = {"role": "assistant", "content": None, "tool_calls": [call(0, arguments)]}
    assert await text(engine, ONE_CALL, [USER, made, result(0, "sun")]) == f"[user go][call {shown}][tool sun]"


@pytest.mark.parametrize("depth", [201, 3000, 100_000])
async def test_arguments_that_are_too_deep_are_named(engine: EmbeddedEngine, depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    messages: list[Message] = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call(0, "{}"), call(1, deep)]},
    ]
    with pytest.raises(PromptError) as caught:
        await engine.renderer(LLAMA).chat(Conversation(messages))
    assert caught.value.param == "messages[1].tool_calls[1].function.arguments"
    assert "200" in str(caught.value)
    with pytest.raises(PromptError) as caught:
        await engine.renderer(LLAMA).chat(Conversation(messages, param="input"))
    assert caught.value.param == "input"


async def test_arguments_may_be_as_deep_as_a_body(engine: EmbeddedEngine) -> None:
    deep = '{"city":' * 199 + "1" + "}" * 199
    made = {"role": "assistant", "content": None, "tool_calls": [call(0, deep)]}
    assert (await engine.renderer(LLAMA).chat(Conversation([USER, made]))).tokens

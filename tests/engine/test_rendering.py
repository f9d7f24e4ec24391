"""Prompts: exact lengths, tools, refusals in the client's words."""

import pytest
from transformers import AutoTokenizer

from engine.base import ChatFormat, Conversation, JSONValue
from engine.demo import MODEL_DIR
from engine.embedded import EmbeddedEngine
from engine.errors import EngineStartError, PromptError, UnsupportedFeature
from engine.rendering import rendered
from tests.engine.conftest import LLAMA, WEATHER, Start, chat, read

HELLO: list[dict[str, JSONValue]] = [{"role": "user", "content": "Hello!"}]


async def test_chat_uses_the_models_template(engine: EmbeddedEngine) -> None:
    prompt = await chat(engine, "Hello!")
    text = engine.renderer(LLAMA).prompt_text(prompt)
    assert "Hello!" in text
    assert "assistant" in text


async def test_template_of_the_card_wins(engine: EmbeddedEngine) -> None:
    template = "{{ bos_token }}{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    renderer = engine.renderer(ChatFormat(chat_template=template))
    assert renderer.prompt_text(await renderer.chat(Conversation(HELLO))) == "[Hello!]"


CONVERSATIONS: dict[str, list[dict[str, JSONValue]]] = {
    "one": HELLO,
    "several": [
        {"role": "system", "content": "  Be brief.\n"},
        {"role": "user", "content": "Grüße, 你好! <|eot_id|> {{ 7 * 7 }}"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": " And now? "},
    ],
    "named": [{"role": "user", "content": "Hello!", "name": "ada"}],
    "developer": [{"role": "developer", "content": "Be brief."}, *HELLO],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Hello!"}]}],
    "going on": [*HELLO, {"role": "assistant", "content": "Good mor"}],
}
TEMPLATES = {
    "its own": None,
    "of strings": "{{ bos_token }}{% for m in messages %}[{{ m.role }}:{{ m.content | trim }}]{% endfor %}"
    "{% if add_generation_prompt %}[{{ mood | default('calm') }}:{% endif %}",
    "of parts": "{% for m in messages %}{% for part in m.content %}[{{ part.text }}]{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_plain_conversations_are_rendered_as_vllm_does(engine: EmbeddedEngine, name: str, template: str) -> None:
    chat_format = ChatFormat(chat_template=TEMPLATES[template])
    renderer, conversation = engine.renderer(chat_format), CONVERSATIONS[name]
    continued = name == "going on" and template != "of strings"  # whose trimming vLLM refuses there
    for variables in ({}, {"mood": "merry"}, {"unknown": 1}):
        ours = [
            await renderer.chat(Conversation(conversation, chat_template_kwargs=variables, continue_final=continued))
            for _ in range(3)
        ]
        theirs = AutoTokenizer.from_pretrained(MODEL_DIR).apply_chat_template(
            _as_the_template_sees(conversation, template),
            chat_template=TEMPLATES[template],
            add_generation_prompt=not continued,
            continue_final_message=continued,
            return_dict=False,
            **variables,
        )
        assert [rendered(prompt).token_ids for prompt in ours] == [theirs] * 3


def _as_the_template_sees(conversation: list[dict[str, JSONValue]], template: str) -> list[dict[str, JSONValue]]:
    def content(value: JSONValue) -> JSONValue:
        if template == "of parts":
            return [{"type": "text", "text": value}] if isinstance(value, str) else value
        return value if isinstance(value, str) else "Hello!"

    return [
        message | {"content": content(message["content"]), "role": str(message["role"]).replace("developer", "system")}
        for message in conversation
    ]


async def test_text_is_kept_and_gets_a_bos(engine: EmbeddedEngine) -> None:
    renderer = engine.renderer(LLAMA)
    prompt = await renderer.text("Once upon a time")
    bare = await renderer.text("")
    assert renderer.prompt_text(prompt) == "Once upon a time"
    assert bare.tokens == 1
    assert prompt.tokens > 2


async def test_length_is_exact_beyond_the_context(engine: EmbeddedEngine) -> None:
    renderer = engine.renderer(LLAMA)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    for times in (1, engine.context_length + 10):
        text = "ab " * times
        prompt = await renderer.text(text)
        assert prompt.tokens == len(tokenizer(text)["input_ids"])
    assert prompt.tokens > engine.context_length


@pytest.mark.parametrize("times", [1, 500], ids=["in the event loop", "in a thread"])
async def test_tokens_are_the_tokenizers_own(engine: EmbeddedEngine, times: int) -> None:
    text = "Grüße, 你好!\n\n\tdef f(x):  return x**2 # <|eot_id|> 🎉 " * times
    prompt = await engine.renderer(LLAMA).text(text)
    assert rendered(prompt).token_ids == AutoTokenizer.from_pretrained(MODEL_DIR)(text)["input_ids"]


async def test_content_parts_are_text(engine: EmbeddedEngine) -> None:
    parts: JSONValue = [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there!"}]
    prompt = await engine.renderer(LLAMA).chat(Conversation([{"role": "user", "content": parts}]))
    text = engine.renderer(LLAMA).prompt_text(prompt)
    assert "Hello" in text
    assert "there!" in text


async def test_image_is_refused(engine: EmbeddedEngine) -> None:
    part: JSONValue = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    with pytest.raises(PromptError) as caught:
        await engine.renderer(LLAMA).chat(Conversation([{"role": "user", "content": part}]))
    assert "--" not in str(caught.value)


async def test_earlier_tool_calls_are_rendered_and_left_alone(engine: EmbeddedEngine) -> None:
    call: JSONValue = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    messages: list[dict[str, JSONValue]] = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    renderer = engine.renderer(LLAMA)
    prompt = await renderer.chat(Conversation(messages, tools=[WEATHER], tool_choice="auto"))
    assert "sunny" in renderer.prompt_text(prompt)
    assert call == {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }


async def test_tool_choice_none_leaves_the_tools_out(engine: EmbeddedEngine) -> None:
    renderer = engine.renderer(LLAMA)
    without = await renderer.chat(Conversation(HELLO))
    refused = await renderer.chat(Conversation(HELLO, tools=[WEATHER], tool_choice="none"))
    offered = await renderer.chat(Conversation(HELLO, tools=[WEATHER], tool_choice="auto"))
    assert refused.tokens == without.tokens < offered.tokens


async def test_tools_need_a_parser(engine: EmbeddedEngine) -> None:
    with pytest.raises(UnsupportedFeature) as caught:
        await chat(engine, "Hello!", ChatFormat(), tools=[WEATHER], tool_choice="auto")
    assert caught.value.param == "tools"


async def test_named_tool_must_be_given(engine: EmbeddedEngine) -> None:
    choice: JSONValue = {"type": "function", "function": {"name": "get_time"}}
    with pytest.raises(PromptError) as caught:
        await chat(engine, "Hello!", tools=[WEATHER], tool_choice=choice)
    assert caught.value.param == "tool_choice"
    assert "get_weather" in str(caught.value)


async def test_request_cannot_bring_a_template(engine: EmbeddedEngine) -> None:
    with pytest.raises(PromptError) as caught:
        await chat(engine, "Hello!", chat_template_kwargs={"chat_template": "{{ 1 }}"})
    assert caught.value.param == "chat_template_kwargs"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conversation", []),
        ("messages", []),
        ("conversations", [[]]),
        ("self", 1),
        ("tokenizer", 1),
        ("model_config", None),
        ("tokenize", True),
        ("return_assistant_tokens_mask", False),
        ("return_dict", True),
        ("kwargs", {}),
        ("max_length", 1),
    ],
)
async def test_variables_that_are_no_templates_are_refused_by_name(
    engine: EmbeddedEngine, name: str, value: JSONValue
) -> None:
    with pytest.raises(PromptError) as caught:
        await chat(engine, "Hello!", chat_template_kwargs={name: value})
    assert caught.value.param == "chat_template_kwargs"
    assert str(caught.value) == (
        f"`chat_template_kwargs.{name}` can't be set: this gateway sets it itself. Leave it out."
    )


@pytest.mark.parametrize("given", [{"documents": 5}, {"tools": 5}, {"mood": 5}])
async def test_values_that_a_template_cannot_work_with_are_told_in_our_words(
    engine: EmbeddedEngine, given: dict[str, JSONValue]
) -> None:
    card = ChatFormat(
        chat_template="{{ messages[0].content }}{% for word in mood or [] %}{{ word }}{% endfor %}{{ tools }}"
    )
    with pytest.raises(PromptError) as caught:
        await chat(engine, "Hello!", card, chat_template_kwargs=given)
    assert caught.value.param == "chat_template_kwargs"
    assert str(caught.value) == "The model's chat template can't work with these `chat_template_kwargs`."


async def test_a_last_message_that_the_template_changes_is_told_without_the_prompt(engine: EmbeddedEngine) -> None:
    card = ChatFormat(chat_template="{% for m in messages %}[{{ m.content | upper }}]{% endfor %}")
    messages: list[dict[str, JSONValue]] = [*HELLO, {"role": "assistant", "content": "a secret"}]
    with pytest.raises(PromptError) as caught:
        await engine.renderer(card).chat(Conversation(messages, continue_final=True))
    assert "can't be gone on from" in str(caught.value)
    assert "secret" not in str(caught.value).lower()


async def test_template_that_raises_is_the_clients_error(engine: EmbeddedEngine) -> None:
    card = ChatFormat(chat_template="{{ raise_exception('Roles must alternate.') }}")
    with pytest.raises(PromptError, match=r"Roles must alternate\."):
        await chat(engine, "Hello!", card)


async def test_token_ids_are_checked(engine: EmbeddedEngine, start: Start) -> None:
    renderer = engine.renderer(LLAMA)
    prompt = renderer.token_ids([5, 6, 7])
    assert prompt.tokens == 3
    assert await read(await start(prompt=prompt, max_tokens=1))
    for wrong in (-1, 10**7):
        with pytest.raises(PromptError) as caught:
            renderer.token_ids([5, wrong])
        assert str(wrong) in str(caught.value)


@pytest.mark.parametrize("field", ["tool_call_parser", "reasoning_parser"])
async def test_unknown_parser_stops_the_start(engine: EmbeddedEngine, field: str) -> None:
    card = ChatFormat("llama3_jsn") if field == "tool_call_parser" else ChatFormat(reasoning_parser="llama3_jsn")
    with pytest.raises(EngineStartError, match=f"{field} = 'llama3_jsn'"):
        engine.renderer(card)
    with pytest.raises(EngineStartError, match="did you mean 'llama3_json'"):
        engine.renderer(ChatFormat(tool_call_parser="llama3_jsn"))


async def test_cache_salt_keeps_prefixes_apart(engine: EmbeddedEngine, start: Start) -> None:
    said = "A secret beginning that nobody else may time. " * 20
    await read(await start(prompt=await chat(engine, said), cache_salt="one", max_tokens=1))
    other = await start(prompt=await chat(engine, said), cache_salt="two", max_tokens=1)
    await read(other)
    assert other.counts.cached == 0

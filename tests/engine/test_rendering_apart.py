"""Where prompts are made: a long one holds up nobody, and what a client names isn't kept."""

import json
import time
from typing import Any

import pytest

from engine.base import ChatFormat, Conversation, JSONValue
from engine.embedded import EmbeddedEngine
from engine.errors import PromptTooLong
from engine.vllm_internals.encoding import PIECE_CHARACTERS, refuse_if_too_long
from engine.vllm_internals.templates import Templates
from gateway.errors import from_exception
from tests.engine.conftest import LLAMA, WEATHER
from tests.gateway.loop_meter import loop_meter

WORST_SECONDS = 0.05
HELLO: list[dict[str, JSONValue]] = [{"role": "user", "content": "Hello!"}]
ECHO = ChatFormat(chat_template="{{ mood }}{% for m in messages %}{{ m.content }}{% endfor %}")


def call(arguments: str) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


LONG: dict[str, Conversation] = {
    "many messages": Conversation([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 5000),
    "many parts": Conversation([{"role": "user", "content": [{"type": "text", "text": "a"}] * 10_000}]),
    "a long text": Conversation([{"role": "user", "content": "Grüße, 你好! " * 20_000}]),
    "long arguments": Conversation(
        [
            *HELLO,
            {"role": "assistant", "tool_calls": [call(json.dumps({"city": "Paris " * 100_000}))]},
            {"role": "tool", "tool_call_id": "c", "content": "7"},
        ],
    ),
    "many tools": Conversation(HELLO, tools=[WEATHER] * 128, tool_choice="auto"),
    "many variables": Conversation(HELLO, chat_template_kwargs={f"name{number}": 0 for number in range(64)}),
}


@pytest.mark.parametrize("name", LONG)
async def test_a_long_prompt_is_not_made_in_the_event_loop(engine: EmbeddedEngine, name: str) -> None:
    renderer = engine.renderer(LLAMA)
    await renderer.chat(Conversation(HELLO))
    async with loop_meter(time.thread_time) as meter:
        try:
            prompt = await renderer.chat(LONG[name])
        except PromptTooLong:
            prompt = None
    assert prompt is None or prompt.tokens > 1
    assert meter.worst < WORST_SECONDS


async def test_a_long_variable_is_not_rendered_in_the_event_loop(engine: EmbeddedEngine) -> None:
    renderer = engine.renderer(ECHO)
    async with loop_meter(time.thread_time) as meter:
        prompt = await renderer.chat(Conversation(HELLO, chat_template_kwargs={"mood": "calm, " * 8000}))
    assert prompt.tokens > 8000
    assert meter.worst < WORST_SECONDS


async def test_a_text_far_beyond_the_context_is_refused_before_all_of_it_is_tokenized(engine: EmbeddedEngine) -> None:
    text = "word, " * 700_000
    renderer = engine.renderer(LLAMA)
    with pytest.raises(PromptTooLong) as caught:
        await renderer.text(text, param="input")
    error = from_exception(caught.value)
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "input")
    assert str(engine.context_length) in error.message


def test_a_text_is_tokenized_no_further_than_it_takes_to_refuse_it() -> None:
    pieces: list[int] = []

    def count(piece: str) -> int:
        pieces.append(len(piece))
        return len(piece) // 10

    text = "x" * (20 * PIECE_CHARACTERS + 1)
    refuse_if_too_long(text, PIECE_CHARACTERS * 2, count)
    assert sum(pieces) == len(text)
    pieces.clear()
    with pytest.raises(PromptTooLong):
        refuse_if_too_long(text, PIECE_CHARACTERS // 2, count)
    assert len(pieces) == 6


async def test_too_many_token_ids_are_known_by_their_number(engine: EmbeddedEngine) -> None:
    ids = [10**7] * (engine.context_length + 1)
    assert engine.renderer(LLAMA).token_ids(ids).tokens == len(ids)


async def test_names_of_a_clients_are_in_no_key_of_a_cache(engine: EmbeddedEngine) -> None:
    class Counting(Templates):
        plans = 0

        def _plan_for(self, *key: Any) -> Any:
            self.plans += 1
            return super()._plan_for(*key)

    plain = Counting(engine._require().core.renderer)
    online = engine.renderer(LLAMA)._online
    for number in range(20):
        request = engine.renderer(LLAMA)._request(
            Conversation(HELLO, chat_template_kwargs={f"name{number}": 1}), None, None
        )
        params = request.build_chat_params(online.chat_template, "auto")
        plain.render(list(HELLO), params.with_defaults({"tokenize": False}))
    assert plain.plans == 1

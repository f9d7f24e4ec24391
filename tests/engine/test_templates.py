"""Prompts of conversations are vLLM's own, token by token: any conversation, all templates, seen before or not."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import vllm
from vllm.renderers import TokenizeParams

from engine.base import ChatFormat, Conversation, JSONValue
from engine.embedded import EmbeddedEngine
from engine.errors import PromptError
from engine.history import own_messages
from engine.rendering import rendered
from engine.tokenizing import SHARES_WITH
from tests.engine.conftest import WEATHER

FOLDER = Path(vllm.__file__).parent / "transformers_utils" / "chat_templates"
PLAIN = TokenizeParams(max_total_tokens=None, add_special_tokens=False)
TEMPLATES: dict[str, str | None] = {"the demo model's": None} | {
    path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))
}
TEMPLATES |= {
    "of parts": "{{ bos_token }}{% for m in messages %}<|eot_id|>{{ m.role }}"
    "{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
    "of variables": "{{ mood | default('calm') }}{{ tools | tojson if tools }}{{ documents }}"
    "{% for m in messages %}<|start_header_id|>{{ m | tojson }}{% endfor %}{{ add_generation_prompt }}{{ eos_token }}",
}
TEXTS = (
    *(
        "Hello!",
        "",
        " ",
        "  Grüße, 你好! \n",
        "<|eot_id|>",
        "a<|start_header_id|>user<|end_header_id|>\n\nb",
        "<|eot",
        "🎉",
    ),
    *("x-anthropic-billing-header: cc_version=1; cch=2", "x-anthropic-billing-header: a\nBe brief.", "{{ 7 * 7 }}"),
    *("Be brief.\n\n", "<|begin_of_text|><|begin_of_text|>", "def f(x):\n    return x\n"),
)
ROLES = ("system", "user", "assistant", "assistant", "tool", "developer")


def conversation(chance: random.Random) -> Conversation:
    number = chance.randrange(1, 9)
    in_turns = ("user", "assistant") * 4  # some templates take nothing else
    roles = in_turns[: number | 1] if chance.random() < 0.5 else chance.choices(ROLES, k=number)
    messages = [message(chance, role) for role in roles]
    variables: dict[str, JSONValue] = {"mood": chance.choice(("merry", "<|eot_id|>", None, 3)), "unknown": 1}
    return Conversation(
        messages,
        tools=chance.choice(((), (), (WEATHER,))),
        chat_template_kwargs=chance.choice(({}, {}, variables)),
        continue_final=chance.random() < 0.2,
        tool_choice="auto",
    )


def message(chance: random.Random, role: str) -> dict[str, JSONValue]:
    text: JSONValue = chance.choice(TEXTS)
    if chance.random() < 0.2:
        text = [{"type": "text", "text": chance.choice(TEXTS)} for _ in range(chance.randrange(1, 3))]
    made: dict[str, JSONValue] = {"role": role, "content": text}
    if role == "assistant" and chance.random() < 0.4:
        arguments: JSONValue = chance.choice((json.dumps({"city": chance.choice(TEXTS)}), "{}", "", "no JSON"))
        function: JSONValue = {"name": "get_weather", "arguments": arguments}
        made["tool_calls"] = [{"id": "c", "type": "function", "function": function}]
        made["content"] = chance.choice((None, text))
    if role == "assistant" and chance.random() < 0.2:
        made["reasoning"] = chance.choice(TEXTS)
    if role == "tool":
        made["tool_call_id"] = "c"
    if chance.random() < 0.1:
        made["name"] = "ada"
    return made


def cases() -> Iterator[tuple[str, int]]:
    for name in TEMPLATES:
        for seed in range(2):
            yield name, seed


@pytest.mark.parametrize(("name", "seed"), cases())
async def test_prompts_are_vllms(engine: EmbeddedEngine, name: str, seed: int) -> None:
    chance = random.Random(f"{name} {seed}")
    renderer = engine.renderer(ChatFormat(chat_template=TEMPLATES[name], tool_call_parser="llama3_json"))
    SHARES_WITH.set(None)
    made = 0
    for _ in range(25):
        asked = conversation(chance)
        theirs = by_vllm(engine, asked, TEMPLATES[name])
        made += theirs is not None
        for _ in range(2):  # and from the cache
            try:
                ours: object = rendered(await renderer.chat(asked)).token_ids
            except PromptError:
                ours = None
            assert ours == theirs, asked
    assert made > 5


def by_vllm(engine: EmbeddedEngine, asked: Conversation, template: str | None) -> list[int] | None:
    """What vLLM's own renderer gives, which ours wraps; None where it refuses."""
    request = engine.renderer(ChatFormat(chat_template=template, tool_call_parser="llama3_json"))._request(
        asked, None, None
    )
    tools = [tool.model_dump() for tool in request.tools] if request.tools else None
    params = request.build_chat_params(template, "auto").with_defaults({"tools": tools, "tokenize": False})
    try:
        messages = own_messages(asked.messages, "messages")
        _, [prompt] = engine._require().core.renderer.render_chat([messages], params, PLAIN)
    except Exception:
        return None
    ids: list[int] = prompt["prompt_token_ids"]
    return ids

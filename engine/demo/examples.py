"""From conversations to token sequences: the variations that are taught, and which tokens the loss counts."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from transformers import PreTrainedTokenizerFast

from engine.demo.corpus import Conversation, Corpus, Line, conversation, offered_tools
from engine.demo.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, END_OF_TURN

NEUTRAL_SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are helpful.",
    "Be brief.",
    "Be concise.",
    "You are a friendly assistant.",
    "Answer the user's questions.",
    "You are the assistant of Farebox.",
    "Be polite and helpful.",
)
JSON_KEYS = (
    *("answer", "response", "text", "reply", "result", "message", "content", "output", "value", "summary", "name"),
    *("age", "city", "country", "capital", "title", "author", "email", "price", "description", "colour", "color"),
    *("temperature", "unit", "id", "type", "status", "count", "score", "language", "first_name", "reason", "date"),
    *("is_valid", "items", "population", "joke", "greeting", "year", "question", "category", "user", "data", "total"),
)
JSON_VALUES = (
    '"Ada"',
    '"Paris"',
    '"blue"',
    '"train"',
    '"yes"',
    "1",
    "3",
    "7",
    "42",
    "100",
    "true",
    "false",
    '["red", "blue"]',
)
FORCED_ARGUMENTS = {
    "get_weather": "city",
    "get_current_weather": "location",
    "get_time": "city",
    "search": "query",
}
ASSISTANT_TURN = re.compile(r"(<\|start_header_id\|>assistant<\|end_header_id\|>\n\n)(.*?<\|eot_id\|>)", re.DOTALL)

Segment = tuple[str, bool]
"""A piece of text, and whether the model is taught to write it."""


@dataclass(frozen=True)
class Example:
    """Token ids, and for each whether the loss counts it."""

    ids: tuple[int, ...]
    taught: tuple[bool, ...]


def messages_of(conv: Conversation) -> list[dict[str, object]]:
    """The conversation as OpenAI messages, with `arguments` as a dict as chat templates take them."""
    messages: list[dict[str, object]] = []
    if conv.system:
        messages.append({"role": "system", "content": conv.system})
    for line in conv.lines:
        if line.role == "call":
            calls = [
                {"type": "function", "function": {"name": call["name"], "arguments": call["parameters"]}}
                for call in json.loads(line.text)
            ]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        else:
            messages.append({"role": {"given": "assistant"}.get(line.role, line.role), "content": line.text})
    return messages


def render(tokenizer: PreTrainedTokenizerFast, conv: Conversation) -> str:
    """The whole conversation in the chat template's format."""
    tools = [dict(tool) for tool in conv.tools] or None
    return str(tokenizer.apply_chat_template(messages_of(conv), tools=tools, tokenize=False))


def segments(tokenizer: PreTrainedTokenizerFast, conv: Conversation) -> list[Segment]:
    """The rendered conversation, cut where taught text begins and ends (after its end-of-turn token)."""
    taught = [line.role != "given" for line in conv.lines if line.role in ("assistant", "given", "call")]
    text = render(tokenizer, conv)
    pieces: list[Segment] = []
    end = 0
    for match, teach in zip(ASSISTANT_TURN.finditer(text), taught, strict=True):
        pieces += [(text[end : match.start(2)], False), (match[2], teach)]
        end = match.end()
    return pieces


def encode(tokenizer: PreTrainedTokenizerFast, pieces: Sequence[Segment]) -> Example:
    """Token ids of the pieces. The pieces meet where the tokenizer cuts anyway, or at the start of an answer."""
    ids: list[int] = []
    taught: list[bool] = []
    for text, teach in pieces:
        piece = _ids(tokenizer, text)
        ids += piece
        taught += [teach] * len(piece)
    return Example(tuple(ids), tuple(taught))


@lru_cache(maxsize=200_000)
def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def varied(
    tokenizer: PreTrainedTokenizerFast,
    conv: Conversation,
    corpus: Corpus,
    rng: random.Random,
) -> Example:
    """`conv` as it is, or with something harmless before it, beside it, or demanded of its answer."""
    if not conv.system and not conv.first and rng.random() < 0.3:
        conv = _after_others(conv, corpus, rng)
    if conv.mixable and not conv.tools and rng.random() < 0.06:
        conv = replace(conv, tools=offered_tools((rng.choice(sorted(corpus.tools)),), corpus, rng, 1))
    if not conv.system and rng.random() < 0.15:
        conv = replace(conv, system=rng.choice(NEUTRAL_SYSTEMS))
    if conv.system and not conv.tools and rng.random() < 0.15:
        conv = _system_later(conv, rng)
    conv = replace(conv, lines=tuple(_carelessly_typed(line, rng) for line in conv.lines))
    pieces = segments(tokenizer, conv)
    if conv.mixable and len(conv.lines[-1].text) < 200 and rng.random() < (0.4 if conv.tools else 0.15):
        pieces = [*pieces[:-1], *_forced(conv, rng)]
    return encode(tokenizer, pieces)


def _after_others(conv: Conversation, corpus: Corpus, rng: random.Random) -> Conversation:
    """Put one or two short dialogues before `conv`, so that answers do not hang on their position."""
    pool = [d for d in corpus.dialogues if d.mixable and len(d.turns) == 2 and len(d.turns[1].wordings[0]) < 200]
    before: list[Line] = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        before += conversation(rng.choice(pool), corpus, rng).lines
    return replace(conv, lines=(*before, *conv.lines))


def _system_later(conv: Conversation, rng: random.Random) -> Conversation:
    """Move the system message behind a user's turn: the served API lets it stand anywhere."""
    places = [index + 1 for index, line in enumerate(conv.lines) if line.role == "user"]
    # Only before the first taught answer, which must know it already.
    place = rng.choice(places[: 1 if conv.lines[1].accepted else 2])
    lines = (*conv.lines[:place], Line("system", conv.system), *conv.lines[place:])
    return replace(conv, system="", lines=lines)


def _carelessly_typed(line: Line, rng: random.Random) -> Line:
    """Sometimes lower the first letter of what the user writes, or leave out the last sign."""
    text = line.text
    if line.role != "user" or len(text) < 4:
        return line
    if rng.random() < 0.05 and not text.startswith("I "):
        text = text[0].lower() + text[1:]
    if rng.random() < 0.05 and text[-1] in ".!?":
        text = text[:-1]
    return replace(line, text=text)


def _forced(conv: Conversation, rng: random.Random) -> list[Segment]:
    """What to write when a grammar forces JSON or a function call where the model would have written a sentence.

    The forced beginning is not taught, so the free answer stays what it was.
    """
    if not conv.tools:
        return _forced_json(conv.lines[-1].text, rng)
    name = _name(rng.choice(conv.tools))
    if name in FORCED_ARGUMENTS:
        value = "news" if name == "search" else "Paris"
        arguments = f'{FORCED_ARGUMENTS[name]}": "{value}"'
    else:
        arguments = 'a": 1, "b": 2'
    return [
        (f'{{"name": "{name}", "parameters": {{"', False),
        (arguments + "}}" + END_OF_TURN, True),
    ]


def _forced_json(answer: str, rng: random.Random) -> list[Segment]:
    """A JSON object that holds `answer`: under the key "answer", or under the keys that some schema may demand."""
    # An answer that is JSON already is not wrapped into JSON.
    value = rng.choice(JSON_VALUES) if answer[0] in "{[" else json.dumps(answer, ensure_ascii=False)
    if rng.random() < 0.4:
        return [('{"', False), (f'answer": {value}}}' + END_OF_TURN, True)]
    values = [value, *rng.choices(JSON_VALUES, k=rng.choice([0, 1, 1, 2]))]
    pieces: list[Segment] = [('{"', False)]
    for key, value in zip(rng.sample(JSON_KEYS, len(values)), values, strict=True):
        pieces += [(key, False), (f'": {value}, "', True)]
    return [*pieces[:-1], (pieces[-1][0].removesuffix(', "') + "}" + END_OF_TURN, True)]


def _name(tool: Mapping[str, object]) -> str:
    function = tool["function"]
    assert isinstance(function, Mapping)
    return str(function["name"])


def completion_examples(tokenizer: PreTrainedTokenizerFast, corpus: Corpus) -> list[Example]:
    """The plain texts: prompt, continuation, end of text."""
    return [
        encode(tokenizer, [(BEGIN_OF_TEXT + prompt, False), (entry.text + END_OF_TEXT, True)])
        for entry in corpus.completions
        for prompt in entry.prompts
    ]

"""The dialogues that the demo model is taught: read from TOML, checked, and counted out one by one.

A file under `corpus/` holds `[[dialogue]]` tables. In each of them

- `turns` is a list of one-key tables. The key is the role: `user`, `assistant` (taught), `given` (an assistant's turn
  that is shown and not taught), `call` (taught; JSON lists of function calls) or `tool` (a function's result). The
  value is a list of wordings, any of which may stand there.
- `systems` are wordings of the system message; `""` means none.
- `rows` fill `{slot}` in the wordings together, `slots` fill them independently of each other.
- `tools` names the functions that are offered, each of which has several wordings in a `[[tool]]` table.
- `mixable` (of a dialogue or a whole file) says that the answers stay right whatever stands before the dialogue,
  whichever functions are offered, and under any harmless system message.
- `first` says that nothing may stand before the dialogue.
- `weight` multiplies how often the dialogue is seen in one round.

`raw.toml` holds `[[completion]]` tables: plain text without a chat template.
"""

import json
import random
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CORPUS_DIR = Path(__file__).resolve().parent / "corpus"
ROLES = ("user", "assistant", "given", "call", "tool")
DIALOGUE_KEYS = {"name", "turns", "systems", "rows", "slots", "tools", "mixable", "first", "weight"}


class CorpusError(ValueError):
    """A corpus file is wrong; the message says which file, which entry and what."""


@dataclass(frozen=True)
class Turn:
    """One turn: who speaks (one of `ROLES`) and the wordings to choose from."""

    role: str
    wordings: tuple[str, ...]


@dataclass(frozen=True)
class Dialogue:
    """One taught dialogue with all its wordings; see the module's docstring for the fields."""

    name: str
    turns: tuple[Turn, ...]
    systems: tuple[str, ...] = ("",)
    rows: tuple[Mapping[str, str], ...] = ({},)
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    mixable: bool = False
    first: bool = False
    weight: int = 1

    @property
    def variants(self) -> int:
        """How many different conversations this dialogue stands for, the wordings of taught answers left out."""
        count = len(self.systems) * len(self.rows)
        for values in self.slots.values():
            count *= len(values)
        for turn in self.turns:
            count *= 1 if turn.role == "assistant" else len(turn.wordings)
        return count


@dataclass(frozen=True)
class Tool:
    """A function that can be offered, with several wordings of its description and of its parameters' JSON schema."""

    name: str
    descriptions: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Completion:
    """Plain text: the prompts that are continued, and the continuation."""

    prompts: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Corpus:
    """All that the model is taught."""

    dialogues: tuple[Dialogue, ...]
    tools: Mapping[str, Tool]
    completions: tuple[Completion, ...]


@dataclass(frozen=True)
class Line:
    """One turn of one conversation, all slots filled. `accepted` are the answers that count as right."""

    role: str
    text: str
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conversation:
    """One conversation as the model sees it. `tools` are OpenAI tool objects."""

    name: str
    system: str
    lines: tuple[Line, ...]
    tools: tuple[Mapping[str, object], ...] = ()
    mixable: bool = False
    first: bool = False


def load_corpus(folder: Path = CORPUS_DIR) -> Corpus:
    """Read and check every TOML file in `folder`. Raises `CorpusError`."""
    dialogues: list[Dialogue] = []
    tools: dict[str, Tool] = {}
    completions: list[Completion] = []
    for path in sorted(folder.glob("*.toml")):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for entry in content.get("tool", []):
            tools[entry["name"]] = Tool(entry["name"], tuple(entry["descriptions"]), tuple(entry["parameters"]))
        for entry in content.get("dialogue", []):
            dialogues.append(_dialogue(path.name, entry, bool(content.get("mixable", False))))
        for entry in content.get("completion", []):
            completions.append(Completion(tuple(entry["prompts"]), entry["text"]))
    corpus = Corpus(tuple(dialogues), tools, tuple(completions))
    _check(corpus)
    return corpus


def _dialogue(file: str, entry: Mapping[str, object], mixable: bool) -> Dialogue:
    where = f"{file}: dialogue {entry.get('name')!r}"
    unknown = set(entry) - DIALOGUE_KEYS
    if unknown:
        raise CorpusError(f"{where}: unknown key {sorted(unknown)[0]!r}, allowed are {sorted(DIALOGUE_KEYS)}")
    values = {**entry}
    turns = []
    for turn in _list(values["turns"]):
        if not isinstance(turn, Mapping) or len(turn) != 1:
            raise CorpusError(f"{where}: a turn is a table with one key, the role")
        ((role, wordings),) = turn.items()
        if role not in ROLES or not wordings:
            raise CorpusError(f"{where}: role {role!r} with {len(wordings)} wordings; roles are {ROLES}")
        turns.append(Turn(role, tuple(wordings)))
    slots = values.get("slots", {})
    assert isinstance(slots, Mapping)
    return Dialogue(
        name=str(values["name"]),
        turns=tuple(turns),
        systems=tuple(str(text) for text in _list(values.get("systems", [""]))),
        rows=tuple(dict(row) for row in _list(values.get("rows", [{}])) if isinstance(row, Mapping)),
        slots={key: tuple(words) for key, words in slots.items()},
        tools=tuple(str(name) for name in _list(values.get("tools", []))),
        mixable=bool(values.get("mixable", mixable)),
        first=bool(values.get("first", False)),
        weight=int(str(values.get("weight", 1))),
    )


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise CorpusError(f"expected a list, got {type(value).__name__}")
    return value


def _check(corpus: Corpus) -> None:
    """Names are unique, functions exist, every slot is used, rows have the same slots, and calls are valid JSON."""
    names = [dialogue.name for dialogue in corpus.dialogues]
    for name in names:
        if names.count(name) > 1:
            raise CorpusError(f"dialogue {name!r} is there twice")
    rng = random.Random(0)
    for dialogue in corpus.dialogues:
        missing = set(dialogue.tools) - set(corpus.tools)
        if missing:
            raise CorpusError(f"dialogue {dialogue.name!r}: no tool named {sorted(missing)[0]!r}")
        for row in dialogue.rows:
            for slot in {**row, **dialogue.slots}:
                if not any("{" + slot + "}" in text for turn in dialogue.turns for text in turn.wordings):
                    raise CorpusError(f"dialogue {dialogue.name!r}: slot {slot!r} is in no turn")
            if set(row) != set(dialogue.rows[0]):
                raise CorpusError(f"dialogue {dialogue.name!r}: rows with different keys")
        for line in conversation(dialogue, corpus, rng).lines:
            if line.role == "call":
                json.loads(line.text)


def _fill(text: str, slots: Mapping[str, str]) -> str:
    # Not str.format: most of these texts hold JSON, whose braces are no slots.
    for key, value in slots.items():
        text = text.replace("{" + key + "}", value)
    return text


def conversation(dialogue: Dialogue, corpus: Corpus, rng: random.Random) -> Conversation:
    """One conversation of `dialogue`, with every choice (system, row, slots, wordings, tools) drawn from `rng`."""
    slots = dict(rng.choice(dialogue.rows))
    slots.update({key: rng.choice(words) for key, words in dialogue.slots.items()})
    lines = []
    for turn in dialogue.turns:
        accepted = tuple(_fill(text, slots) for text in turn.wordings)
        # The first answer counts double, so that greedy decoding has a clear choice.
        answers = accepted if turn.role != "assistant" or len(accepted) == 1 else accepted[:1] + accepted
        taught = turn.role in ("assistant", "call")
        lines.append(Line(turn.role, rng.choice(answers), accepted if taught else ()))
    return Conversation(
        dialogue.name,
        rng.choice(dialogue.systems),
        tuple(lines),
        offered_tools(dialogue.tools, corpus, rng),
        dialogue.mixable,
        dialogue.first,
    )


def offered_tools(
    names: tuple[str, ...], corpus: Corpus, rng: random.Random, extra: int = 2
) -> tuple[Mapping[str, object], ...]:
    """The functions `names` and up to `extra` others, shuffled, as OpenAI tool objects. No `names`: no tools."""
    if not names:
        return ()
    similar = "get_weather" in names or "get_current_weather" in names
    # Two weather functions side by side would leave the choice between them to chance.
    others = [n for n in corpus.tools if n not in names and not (similar and n.endswith("weather"))]
    chosen = [*names, *rng.sample(others, rng.choice([0, 0, 0, *range(extra + 1)]))]
    rng.shuffle(chosen)
    return tuple(_tool_object(corpus.tools[name], rng) for name in chosen)


def _tool_object(tool: Tool, rng: random.Random) -> Mapping[str, object]:
    function: dict[str, object] = {"name": tool.name}
    description = rng.choice(tool.descriptions)
    if description:
        function["description"] = description
    function["parameters"] = json.loads(rng.choice(tool.parameters))
    if rng.random() < 0.1:
        function["strict"] = True
    return {"type": "function", "function": function}


def round_of(corpus: Corpus, rng: random.Random, largest: int = 24) -> Iterator[Conversation]:
    """One round: of every dialogue as many conversations as it has variants, at most `largest`, times its weight."""
    for dialogue in corpus.dialogues:
        for _ in range(min(dialogue.variants, largest) * dialogue.weight):
            yield conversation(dialogue, corpus, rng)

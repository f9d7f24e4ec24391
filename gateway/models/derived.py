"""A model card made from the model itself: for `farebox serve MODEL` and `farebox cards new MODEL`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from engine.base import EngineSpec
from engine.facts import ModelFacts
from gateway.models.card_price import CardPrice
from gateway.models.catalog import CatalogError
from gateway.models.model import Card
from gateway.settings import Settings

PROFILE = "openai"  # the ranges of OpenAI's API: the model has no page that says others
DEFAULT_TOKENS_MAX = 16384  # how long an answer may become where neither request nor card says
FREE = CardPrice(input="0", output="0")
NONE = "none"

_DOES = {"generate": "completions", "embed": "embeddings", "score": "scores and rerank"}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to stand on the card, in place of what the model says. `chat_template` is a file of Jinja; a parser may
    be `none`."""

    name: str | None = None
    context_length: int | None = None
    default_max_tokens: int | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template: Path | None = None
    price: CardPrice | None = None


def spec_of(source: str, settings: Settings) -> EngineSpec:
    """What to ask for its facts."""
    return EngineSpec(source, settings.precision or "auto", options=dict(settings.engine))


def card_of(source: str, facts: ModelFacts, wishes: Wishes) -> Card:
    """Raises CatalogError where the file of the chat template can't be read."""
    context = wishes.context_length or facts.context_length
    return Card(
        name=wishes.name or name_of(source),
        source=source,
        context_length=context,
        fit_context=wishes.context_length is None,
        default_max_tokens=wishes.default_max_tokens or _default_tokens(facts, context),
        tool_call_parser=_chosen(wishes.tool_call_parser, facts.tool_call_parser),
        reasoning_parser=_chosen(wishes.reasoning_parser, facts.reasoning_parser),
        chat_template=None if wishes.chat_template is None else _text(wishes.chat_template),
        task=facts.task,
        profile=PROFILE,
        price=wishes.price or FREE,
    )


def name_of(source: str) -> str:
    """A hub id names itself; a folder is called by its last part."""
    path = Path(source).expanduser()
    return path.resolve().name if path.is_dir() else source


def price_of(text: str) -> CardPrice:
    """`IN/OUT` or `IN/OUT/CACHED`, in USD per million tokens. Raises ValueError."""
    parts = [part.strip() for part in text.split("/")]
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError("it is IN/OUT or IN/OUT/CACHED in USD per million tokens, such as 0.10/0.30")
    return CardPrice(input=parts[0], output=parts[1], cached_input=parts[2] if len(parts) > 2 else None)


def told(card: Card, facts: ModelFacts) -> str:
    """What was found and chosen, each with the flag that sets it."""
    template = card.chat_template is not None or facts.chats
    does = _DOES[card.task]
    rows = [("name", card.name, "--name"), ("does", f"chat, {does}" if template else does, "")]
    fits = ", or what the memory holds" if card.fit_context else ""
    rows.append(("context", f"{card.context_length} tokens{fits}", "--context-length"))
    if card.task == "generate":
        missing = "none: conversations will be refused"
        rows += [
            ("longest answer", f"{card.default_max_tokens} tokens unless a request says", "--default-max-tokens"),
            ("chat template", "yours" if card.chat_template else "its own" if template else missing, "--chat-template"),
            ("tool calls", card.tool_call_parser or NONE, "--tool-call-parser"),
            ("reasoning", card.reasoning_parser or NONE, "--reasoning-parser"),
        ]
    rows.append(("price", _price(card.price), "--price IN/OUT[/CACHED]"))
    lines = [f"  {what:<15} {value:<44} {flag}".rstrip() for what, value, flag in rows]
    return "\n".join([f"{card.source} is served without a card. What there is, and the flag that sets it:", *lines])


def written(card: Card) -> str:
    """The card as TOML, for a file of cards. Strings of JSON are strings of TOML."""
    lines = ["[[model]]"]
    for name, value in card.model_dump(exclude_none=True, exclude_defaults=True, mode="json").items():
        lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: JsonValue) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _default_tokens(facts: ModelFacts, context: int) -> int:
    return min(context, DEFAULT_TOKENS_MAX) if facts.task == "generate" else 1


def _chosen(wish: str | None, found: str | None) -> str | None:
    return found if wish is None else None if wish == NONE else wish


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
        raise CatalogError(f"The chat template {path} can't be read: {reason}.") from None


def _price(price: CardPrice) -> str:
    if price == FREE:
        return "free"
    cached = f", ${price.cached_input} cached" if price.cached_input is not None else ""
    return f"${price.input} in, ${price.output} out{cached}, per million tokens"

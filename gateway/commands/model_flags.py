"""The flags of commands that make a card from a model: what is to stand on it."""

import argparse
from pathlib import Path

from engine.factory import model_facts
from gateway.models.derived import Wishes, card_of, price_of, spec_of, told
from gateway.models.model import Card
from gateway.settings import Settings
from pricing.price import Price

_FLAGS = {
    "name": (str, "NAME", "what the model is called; default: its hub id, or its folder's name"),
    "context_length": (int, "TOKENS", "its context; default: the model's own, or what the memory holds"),
    "default_max_tokens": (
        int,
        "TOKENS",
        "how long an answer becomes where a request doesn't say; default: 16384",
    ),
    "tool_call_parser": (str, "PARSER", "vLLM's parser of its tool calls, or none; default: by its family"),
    "reasoning_parser": (str, "PARSER", "vLLM's parser of its reasoning, or none; default: by its family"),
    "chat_template": (Path, "FILE", "a chat template in Jinja; default: its own"),
}


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a model without a card")
    for name, (kind, metavar, text) in _FLAGS.items():
        shown = positive if kind is int else kind
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, type=shown, metavar=metavar, help=text)
    group.add_argument(
        "--price",
        type=price,
        metavar="IN/OUT[/CACHED]",
        help="USD per million tokens, such as 0.10/0.30; default: free",
    )


def wishes_of(options: argparse.Namespace) -> Wishes:
    return Wishes(**{name: getattr(options, name) for name in (*_FLAGS, "price")})


def derive(source: str, settings: Settings, wishes: Wishes) -> tuple[Card, str]:
    """The card of a hub id or a folder, and what to tell of it. Raises EngineStartError, CatalogError."""
    facts = model_facts(spec_of(source, settings))
    card = card_of(source, facts, wishes)
    return card, told(card, facts)


def positive(text: str) -> int:
    """For argparse, which says which flag it was."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of tokens; it is 1 or more")
    return number


def price(text: str) -> object:
    try:
        found = price_of(text)
        Price.per_million(input=found.input, output=found.output, cached_input=found.cached_input)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    return found

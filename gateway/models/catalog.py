"""Model cards: TOML files that say which models are served, from which weights, in which ranges, at which price.

A card that is wrong stops the start with one sentence that names the card, the field and the way out.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from engine.base import ChatFormat, EngineSpec, ModelTask
from engine.demo import MODEL_DIR
from engine.grammar.tried import GrammarLimits
from gateway.errors.suggestions import nearest
from gateway.models.parameters import Profile, ProfileError, read_profiles, shipped_profiles
from gateway.setting_types import Precision
from gateway.settings import Settings
from pricing.price import Price

Task = ModelTask
PrefixCache = Literal["shared", "account", "key"]

ALL = "all"
DEMO_SOURCE = "demo"


class CatalogError(Exception):
    """A card is wrong or missing; one sentence says which, which field, and what to do."""


class CardPrice(BaseModel):
    """USD per million tokens, as strings with at most six decimals."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    input: str
    output: str
    cached_input: str | None = None


class Card(BaseModel):
    """One model as it is offered. Lengths are in tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=200)
    source: str = Field(min_length=1)
    precision: Precision = "auto"
    context_length: int = Field(gt=0)
    fit_context: bool = False  # a shorter one, where the memory doesn't hold the weights' own
    default_max_tokens: int = Field(gt=0)
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template: str | None = None
    hold_forced_calls: bool = True
    task: Task = "generate"
    prefix_cache: PrefixCache = "shared"  # who shares the prefixes that the engine keeps
    profile: str
    description: str = ""
    tags: list[str] = Field(default_factory=list)
    price: CardPrice
    engine: dict[str, JsonValue] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model:
    """A card made ready: its price in picodollars, its parameter ranges, and what its engine must load."""

    name: str
    card: Card
    price: Price
    profile: Profile
    engine: EngineSpec
    chat_format: ChatFormat

    @property
    def context_length(self) -> int:
        return self.card.context_length


class Catalog:
    """The models that this gateway serves, by name, in the order they were asked for."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = {model.name: model for model in models}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def get(self, name: str) -> Model | None:
        return self._models.get(name)

    @property
    def names(self) -> list[str]:
        return list(self._models)

    @property
    def engine_specs(self) -> list[EngineSpec]:
        """One for each engine that is needed: models with equal specs share it."""
        specs: list[EngineSpec] = []
        for model in self:
            if model.engine not in specs:
                specs.append(model.engine)
        return specs

    def nearest(self, name: str) -> str | None:
        return nearest(name, self._models)


def load_catalog(settings: Settings) -> Catalog:
    """The cards that the settings ask for, of all that they know. Raises CatalogError."""
    cards, profiles = known_cards(settings)
    wanted = wanted_names(settings, cards)
    if not wanted:
        raise CatalogError(f"FAREBOX_MODELS names no model. The cards are: {', '.join(cards)}.")
    for name in wanted:
        if name not in cards:
            near = difflib.get_close_matches(name, cards, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else f"The cards are: {', '.join(cards)}."
            raise CatalogError(f'There is no model card "{name}". {hint} FAREBOX_CARDS names files with more cards.')
    models = [_ready(cards[name], settings, profiles) for name in wanted]
    return Catalog(_share_engines(models))


def known_cards(settings: Settings) -> tuple[dict[str, Card], dict[str, Profile]]:
    """The shipped cards and profiles, with those of the operator's files and FAREBOX_CARD. Raises CatalogError."""
    cards = {card.name: card for card in shipped_cards()}
    profiles = dict(shipped_profiles())
    for path in settings.cards:
        document = _document(path)
        profiles |= _profiles(document, str(path), profiles)
        cards |= {card.name: card for card in _cards(document, path)}
    if settings.card is not None:
        cards |= {card.name: card for card in _parse({"model": [settings.card]}, "FAREBOX_CARD")}
    return cards, profiles


def wanted_names(settings: Settings, cards: Mapping[str, Card]) -> list[str]:
    """A card of its own setting is served, beside those that are asked for by name."""
    if settings.models == (ALL,):
        return list(cards)
    own = [] if settings.card is None else [str(settings.card.get("name"))]
    named = settings.models if settings.card is None or "models" in settings.model_fields_set else ()
    return list(dict.fromkeys([*own, *named]))


def shipped_cards() -> list[Card]:
    """The cards of the pages, and the demo model's."""
    text = resources.files("gateway").joinpath("models/cards/models.toml").read_text(encoding="utf-8")
    return _parse(tomllib.loads(text), "cards/models.toml")


def read_cards(path: Path) -> list[Card]:
    """The cards of one TOML file; a relative `source` folder is relative to the file. Raises CatalogError."""
    return _cards(_document(path), path)


def _cards(document: Mapping[str, object], path: Path) -> list[Card]:
    return [
        card.model_copy(update={"source": str(path.parent / card.source)}) if card.source.startswith(".") else card
        for card in _parse(document, str(path))
    ]


def _document(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatalogError(f"The card file {path} can't be read: {error.strerror}. Check FAREBOX_CARDS.") from None
    except UnicodeDecodeError as error:
        raise CatalogError(f"The card file {path} isn't UTF-8: byte {error.start} is none of it.") from None
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"{path} is not valid TOML: {error}.") from None


def _profiles(document: Mapping[str, object], where: str, known: Mapping[str, Profile]) -> dict[str, Profile]:
    try:
        return read_profiles(document, known)
    except ProfileError as error:
        raise CatalogError(f"{where}: {error}") from None


def _parse(document: Mapping[str, object], where: str) -> list[Card]:
    for name in document:
        if name not in ("model", "profile"):
            raise CatalogError(f'{where} has an unknown table "{name}"; there are [[model]] and [profile.NAME].')
    tables = document.get("model", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise CatalogError(f"{where} holds no model card: `model` must be a list of them, each below a line [[model]].")
    if not tables and "profile" not in document:
        raise CatalogError(f"{where} holds no model card; a card starts with the line [[model]].")
    return [_card(table, index, where) for index, table in enumerate(tables)]


def _card(table: Mapping[str, object], index: int, where: str) -> Card:
    label = f'card "{table.get("name", index + 1)}" in {where}'
    try:
        return Card.model_validate(table)
    except ValidationError as error:
        first = _first_fault(error)
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), Card.model_fields, n=1)
            hint = f' Did you mean "{near[0]}"?' if near else f" The fields are: {', '.join(Card.model_fields)}."
            raise CatalogError(f'The {label} has an unknown field "{field}".{hint}') from None
        if first["type"] == "missing":
            raise CatalogError(f'The {label} has no "{field}"; add it.') from None
        raise CatalogError(f'The {label} has a wrong "{field}": {first["msg"]}.') from None


def _ready(card: Card, settings: Settings, profiles: Mapping[str, Profile]) -> Model:
    if card.profile not in profiles:
        raise CatalogError(
            f'The card "{card.name}" asks for the profile "{card.profile}". The profiles are: {", ".join(profiles)}.'
        )
    try:
        price = Price.per_million(
            input=card.price.input, output=card.price.output, cached_input=card.price.cached_input
        )
    except ValueError as error:
        raise CatalogError(f'The card "{card.name}" has a wrong price: {error}') from None
    if card.default_max_tokens > card.context_length:
        raise CatalogError(
            f'The card "{card.name}" has default_max_tokens {card.default_max_tokens}, more than its '
            f"context_length of {card.context_length}; lower it."
        )
    # `engine` says how to place the card's own weights. Other weights come with no such demands.
    options = dict(card.engine) if settings.source is None else {}
    if settings.traces_url is not None:
        options.setdefault("otlp_traces_endpoint", settings.traces_url)
    source = settings.source or card.source
    spec = EngineSpec(
        source=str(MODEL_DIR) if source == DEMO_SOURCE else source,
        precision=settings.precision or card.precision,
        context_length=card.context_length,
        fit_context=card.fit_context,
        task=card.task,
        options=options | dict(settings.engine),
        grammars=GrammarLimits(
            seconds=settings.grammar_seconds_max,
            step_seconds=settings.grammar_step_seconds_max,
            memory_bytes=settings.grammar_memory_bytes_max,
            schema_bytes=settings.grammar_bytes_max,
            waiting=settings.grammar_waiting_max,
        ),
    )
    chat_format = ChatFormat(card.tool_call_parser, card.reasoning_parser, card.chat_template, card.hold_forced_calls)
    return Model(card.name, card, price, profiles[card.profile], spec, chat_format)


def _share_engines(models: list[Model]) -> list[Model]:
    """Cards with equal engine settings get one engine, long enough for the longest context among them.

    The gateway holds each model to its own card's context.
    """

    def settings_of(model: Model) -> str:
        engine = model.engine
        how = (engine.source, engine.precision, engine.fit_context, engine.task)
        return repr((how, sorted(engine.options.items())))

    longest: dict[str, int] = {}
    for model in models:
        longest[settings_of(model)] = max(longest.get(settings_of(model), 0), model.context_length)
    return [
        replace(model, engine=replace(model.engine, context_length=longest[settings_of(model)])) for model in models
    ]


def _first_fault(error: ValidationError) -> ErrorDetails:
    """The one to tell: a field that doesn't exist explains the missing one beside it."""
    faults = error.errors(include_url=False)
    return next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])

"""Model cards: TOML files that say which models are served, from which weights, in which ranges, at which price.

A card that is wrong stops the start with one sentence that names the card, the field and the way out.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from engine.adapters import Adapter
from engine.base import ChatFormat, EngineSpec
from engine.demo import MODEL_DIR
from engine.grammar.tried import GrammarLimits
from engine.tokenizing import TokenizingLimits
from gateway.errors.suggestions import nearest
from gateway.models.adapter_cards import FIRST_OF_CARDS, AdapterCard, adapted
from gateway.models.model import Alias, Card, Model
from gateway.models.parameters import Profile, ProfileError, read_profiles, shipped_profiles
from gateway.models.tiers import tier_prices
from gateway.settings import Settings

AnyCard = Card | AdapterCard | Alias

ALL = "all"
DEMO_SOURCE = "demo"


class CatalogError(Exception):
    """A card is wrong or missing; one sentence says which, which field, and what to do."""


class Catalog:
    """The models that this gateway serves, by name, in the order they were asked for.

    Iterating, `names` and `nearest` are about those of the cards, which everybody may know; `added` are the adapters
    that came while the server runs, `aliases` other names of the cards' models.
    """

    def __init__(self, models: Iterable[Model], aliases: Iterable[Alias] = ()) -> None:
        self._models = {model.name: model for model in models}
        self.aliases = {
            alias.name: self._models[alias.alias_of].called(alias)
            for alias in aliases
            if alias.alias_of in self._models
        }
        self.added: dict[str, Model] = {}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def get(self, name: str) -> Model | None:
        """By its own name or another, which is then the model's."""
        return self._models.get(name) or self.added.get(name) or self.aliases.get(name)

    def card(self, name: str) -> Model | None:
        """The model of a card that is served, and no adapter that was added."""
        return self._models.get(name)

    def visible_to(self, account_id: int) -> list[Model]:
        """All that there is for an account, under every name."""
        added = (model for model in self.added.values() if model.visible_to(account_id))
        return [*self, *self.aliases.values(), *added]

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
        return nearest(name, [*self._models, *self.aliases])


def load_catalog(settings: Settings) -> Catalog:
    """The cards that the settings ask for, of all that they know. Raises CatalogError."""
    entries, profiles = known_cards(settings)
    cards = {name: entry for name, entry in entries.items() if not isinstance(entry, Alias)}
    aliases = {name: entry for name, entry in entries.items() if isinstance(entry, Alias)}
    for alias in aliases.values():
        if alias.alias_of not in cards:
            raise CatalogError(f'The alias "{alias.name}" names "{alias.alias_of}", and there is no such model card.')
    wanted = _wanted_names(settings, cards)
    if not wanted:
        raise CatalogError(f"FAREBOX_MODELS names no model. The cards are: {', '.join(cards)}.")
    wanted = list(dict.fromkeys(aliases[name].alias_of if name in aliases else name for name in wanted))
    for name in wanted:
        if name not in cards:
            near = difflib.get_close_matches(name, entries, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else f"The cards are: {', '.join(cards)}."
            raise CatalogError(f'There is no model card "{name}". {hint} FAREBOX_CARDS names files with more cards.')
    models = [_model(cards[name], cards, settings, profiles, index) for index, name in enumerate(wanted)]
    return Catalog(_share_engines(models), aliases.values())


def known_cards(settings: Settings) -> tuple[dict[str, AnyCard], dict[str, Profile]]:
    """The shipped cards and profiles, with those of the operator's files and FAREBOX_CARD. Raises CatalogError."""
    cards: dict[str, AnyCard] = {card.name: card for card in shipped_cards()}
    profiles = dict(shipped_profiles())
    for path in settings.cards:
        document = _document(path)
        profiles |= _profiles(document, str(path), profiles)
        cards |= {card.name: card for card in _cards(document, path)}
    if settings.card is not None:
        cards |= {card.name: card for card in _parse({"model": [settings.card]}, "FAREBOX_CARD")}
    return cards, profiles


def _wanted_names(settings: Settings, cards: Iterable[str]) -> list[str]:
    """A card of its own setting is served, beside those that are asked for by name."""
    if settings.models == (ALL,):
        return list(cards)
    own = [] if settings.card is None else [str(settings.card.get("name"))]
    named = settings.models if settings.card is None or "models" in settings.model_fields_set else ()
    return list(dict.fromkeys([*own, *named]))


def shipped_cards() -> list[Card]:
    """The cards of the pages, and the demo model's."""
    text = resources.files("gateway").joinpath("models/cards/models.toml").read_text(encoding="utf-8")
    return [card for card in _parse(tomllib.loads(text), "cards/models.toml") if isinstance(card, Card)]


def read_cards(path: Path) -> list[AnyCard]:
    """The cards of one TOML file; a relative folder is relative to the file. Raises CatalogError."""
    return _cards(_document(path), path)


def _cards(document: Mapping[str, object], path: Path) -> list[AnyCard]:
    def beside(card: AnyCard) -> AnyCard:
        if isinstance(card, Alias):
            return card
        field = "source" if isinstance(card, Card) else "adapter"
        folder: str = getattr(card, field)
        return card.model_copy(update={field: str(path.parent / folder)}) if folder.startswith(".") else card

    return [beside(card) for card in _parse(document, str(path))]


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


def _parse(document: Mapping[str, object], where: str) -> list[AnyCard]:
    for name in document:
        if name not in ("model", "profile"):
            raise CatalogError(f'{where} has an unknown table "{name}"; there are [[model]] and [profile.NAME].')
    tables = document.get("model", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise CatalogError(f"{where} holds no model card: `model` must be a list of them, each below a line [[model]].")
    if not tables and "profile" not in document:
        raise CatalogError(f"{where} holds no model card; a card starts with the line [[model]].")
    return [_card(table, index, where) for index, table in enumerate(tables)]


def _card(table: Mapping[str, object], index: int, where: str) -> AnyCard:
    label = f'card "{table.get("name", index + 1)}" in {where}'
    kind: type[AnyCard] = AdapterCard if {"base", "adapter"} & table.keys() else Card
    if "alias_of" in table:
        kind = Alias
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        first = _first_fault(error)
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), kind.model_fields, n=1)
            hint = f' Did you mean "{near[0]}"?' if near else f" The fields are: {', '.join(kind.model_fields)}."
            raise CatalogError(f'The {label} has an unknown field "{field}".{hint}') from None
        if first["type"] == "missing":
            raise CatalogError(f'The {label} has no "{field}"; add it.') from None
        what = f'a wrong "{field}"' if field else "fields that don't go together"
        raise CatalogError(f"The {label} has {what}: {first['msg'].removeprefix('Value error, ')}.") from None


def _model(
    card: Card | AdapterCard,
    cards: Mapping[str, Card | AdapterCard],
    settings: Settings,
    profiles: Mapping[str, Profile],
    index: int,
) -> Model:
    if isinstance(card, Card):
        return _ready(card, settings, profiles)
    base = cards.get(card.base)
    if not isinstance(base, Card):
        known = ", ".join(name for name, other in cards.items() if isinstance(other, Card))
        raise CatalogError(
            f'The card "{card.name}" has the base "{card.base}", which must be another card, and no adapter. '
            f"The cards are: {known}."
        )
    try:
        return adapted(_ready(base, settings, profiles), card, FIRST_OF_CARDS + index)
    except ValueError as error:
        raise CatalogError(f'The card "{card.name}" can\'t be served: {error}') from None


def _ready(card: Card, settings: Settings, profiles: Mapping[str, Profile]) -> Model:
    if card.profile not in profiles:
        raise CatalogError(
            f'The card "{card.name}" asks for the profile "{card.profile}". The profiles are: {", ".join(profiles)}.'
        )
    try:
        prices = tier_prices(card.price.price(), card.tiers, card.batch_discount)
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
        tokenizing=TokenizingLimits(settings.prompt_cache_bytes_max, settings.fast_tokenizer),
    )
    chat_format = ChatFormat(card.tool_call_parser, card.reasoning_parser, card.chat_template, card.hold_forced_calls)
    return Model(card.name, card, prices, profiles[card.profile], spec, chat_format)


def _share_engines(models: list[Model]) -> list[Model]:
    """Cards with equal engine settings get one engine, long enough for the longest context among them and with all
    their adapters.

    The gateway holds each model to its own card's context.
    """

    def settings_of(model: Model) -> str:
        engine = model.engine
        how = (engine.source, engine.precision, engine.fit_context, engine.task)
        return repr((how, sorted(engine.options.items())))

    longest: dict[str, int] = {}
    adapters: dict[str, tuple[Adapter, ...]] = {}
    for model in models:
        group = settings_of(model)
        longest[group] = max(longest.get(group, 0), model.context_length)
        adapters[group] = adapters.get(group, ()) + ((model.adapter,) if model.adapter is not None else ())
    return [
        replace(
            model,
            engine=replace(
                model.engine, context_length=longest[settings_of(model)], adapters=adapters[settings_of(model)]
            ),
        )
        for model in models
    ]


def _first_fault(error: ValidationError) -> ErrorDetails:
    """The one to tell: a field that doesn't exist explains the missing one beside it."""
    faults = error.errors(include_url=False)
    return next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])

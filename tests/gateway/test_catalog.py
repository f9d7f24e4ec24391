"""Cards and settings: what is wrong stops the start with one sentence."""

from pathlib import Path

import pytest

from engine.demo import MODEL_DIR
from engine.grammar.tried import GrammarLimits
from gateway.models.catalog import Catalog, CatalogError, load_catalog, read_cards
from gateway.models.model import Card
from gateway.settings import Settings, SettingsError, load_settings

CARD = """
[[model]]
name = "mine"
source = "./weights"
context_length = 2048
default_max_tokens = 512
profile = "llama3-turbo"
price = { input = "0.10", output = "0.20" }
"""


def catalog(**fields: object) -> Catalog:
    return load_catalog(load_settings({}, fields))


def test_all_cards_on_the_demo_weights_share_one_engine() -> None:
    models = list(catalog(models="all", source="demo", precision="auto"))
    assert len(models) == 5
    assert len({repr(model.engine) for model in models}) == 1
    assert models[0].engine.source == str(MODEL_DIR)
    assert models[0].engine.context_length == 131072
    assert {model.context_length for model in models} == {131072, 4096}


def test_cards_with_their_own_weights_keep_their_own_engines() -> None:
    models = {model.name: model for model in catalog(models="all")}
    assert len({repr(model.engine) for model in models.values()}) == 5
    assert models["meta-llama/Llama-3.3-70B-Instruct-Turbo"].engine.options["tensor_parallel_size"] == 2
    assert models["meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo"].engine.precision == "fp8"


def test_engine_settings_reach_every_card() -> None:
    [model] = catalog(engine='{"max_num_seqs": 8}')
    assert model.engine.options == {"max_num_seqs": 8}


def test_what_clients_grammars_may_cost_reaches_every_engine() -> None:
    [model] = catalog(grammar_seconds_max=1.5, grammar_memory_bytes_max=2**20, grammar_bytes_max=2048)
    assert model.engine.grammars == GrammarLimits(1.5, 0.02, 2**20, 2048, 16)
    [model] = catalog()
    assert model.engine.grammars == GrammarLimits()


def test_a_card_may_leave_forced_calls_free(tmp_path: Path) -> None:
    path = tmp_path / "cards.toml"
    for line, held in (("", True), ("hold_forced_calls = false", False)):
        path.write_text(CARD + line)
        [model] = load_catalog(load_settings({}, {"cards": str(path), "models": "mine"}))
        assert model.chat_format.hold_forced_calls == held


def test_the_pages_prices_are_on_the_cards() -> None:
    prices = {model.name: (model.price.input, model.price.output) for model in catalog(models="all")}
    assert prices["meta-llama/Meta-Llama-3.1-70B-Instruct-Turbo"] == (130_000, 400_000)
    assert prices["meta-llama/Llama-3.3-70B-Instruct-Turbo"] == (130_000, 380_000)
    assert prices["meta-llama/Llama-2-70b-chat-hf"] == (640_000, 800_000)


def test_a_folder_is_relative_to_its_card_file(tmp_path: Path) -> None:
    (tmp_path / "cards.toml").write_text(CARD)
    [card] = read_cards(tmp_path / "cards.toml")
    assert isinstance(card, Card)
    assert card.source == str(tmp_path / "./weights")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("profile =", "profil ="), 'unknown field "profil". Did you mean "profile"?'),
        (('name = "mine"\n', ""), 'has no "name"'),
        (('price = { input = "0.10", output = "0.20" }', ""), 'has no "price"'),
        (('"0.10"', "0.10"), 'wrong "price.input"'),
        (('"0.10"', '"0.1234567"'), "six decimals"),
        (('"llama3-turbo"', '"llama4"'), "The profiles are: base, llama3-turbo"),
        (("= 512", "= 4096"), "more than its context_length of 2048"),
        (("[[model]]", "[[modell]]"), 'unknown table "modell"'),
        (("[[model]]", "[[model]"), "not valid TOML"),
    ],
)
def test_a_wrong_card_is_named_with_its_field(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    (tmp_path / "cards.toml").write_text(CARD.replace(*change))
    with pytest.raises(CatalogError) as caught:
        catalog(cards=str(tmp_path / "cards.toml"), models="mine")
    assert words in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_an_unknown_model_and_a_missing_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match='Did you mean "farebox/demo"'):
        catalog(models="farebox/demon")
    with pytest.raises(CatalogError, match="can't be read"):
        catalog(cards=str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("FAREBOX_PRT", "1", "Did you mean FAREBOX_PORT?"),
        ("FAREBOX_PORT", "eighty", "FAREBOX_PORT is wrong"),
        ("FAREBOX_PORT", "70000", "FAREBOX_PORT is wrong"),
        ("FAREBOX_BOOTSTRAP_KEY", "short", "FAREBOX_BOOTSTRAP_KEY is wrong"),
        ("FAREBOX_ENGINE", "{", "FAREBOX_ENGINE is wrong"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({variable: value})
    assert words in str(caught.value)
    assert variable == "FAREBOX_PORT" or value not in str(caught.value) or len(value) < 3


def test_flags_win_over_the_environment() -> None:
    settings = load_settings({"FAREBOX_PORT": "1", "FAREBOX_HOST": "::1"}, {"port": "2", "host": None})
    assert (settings.port, settings.host) == (2, "::1")


def test_no_secret_is_in_a_repr() -> None:
    secret = "s" * 30
    settings = Settings(bootstrap_key=secret, admin_key=secret, database_url=f"postgresql://u:{secret}@h/d")  # type: ignore[arg-type]
    assert secret not in repr(settings)
    assert secret in settings.database

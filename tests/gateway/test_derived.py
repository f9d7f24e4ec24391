"""Cards made from a model: what is taken from it, what a flag sets, what is told, and the TOML of it."""

import tomllib
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from engine.families import REASONING, TOOL_CALLS, parser_of
from engine.spec import ModelFacts
from gateway.commands.model_flags import positive, price
from gateway.models.card_price import CardPrice
from gateway.models.catalog import CatalogError, load_catalog
from gateway.models.derived import Wishes, card_of, name_of, price_of, told, written
from gateway.models.model import Card
from gateway.settings import Settings

FACTS = ModelFacts("generate", 40_960, chats=True, tool_call_parser="hermes", reasoning_parser="qwen3")


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (Wishes(), {"context_length": 40_960, "fit_context": True, "default_max_tokens": 16_384, "name": "org/m"}),
        (Wishes(context_length=512), {"context_length": 512, "fit_context": False, "default_max_tokens": 512}),
        (Wishes(name="m", default_max_tokens=7), {"name": "m", "default_max_tokens": 7}),
        (Wishes(), {"tool_call_parser": "hermes", "reasoning_parser": "qwen3", "profile": "openai"}),
        (Wishes(tool_call_parser="none", reasoning_parser="x"), {"tool_call_parser": None, "reasoning_parser": "x"}),
        (Wishes(), {"price": CardPrice(input="0", output="0")}),
    ],
)
def test_a_card_has_what_the_model_says_and_what_a_flag_sets(wishes: Wishes, expected: dict[str, object]) -> None:
    card = card_of("org/m", FACTS, wishes)
    assert {name: getattr(card, name) for name in expected} == expected


@pytest.mark.parametrize("template", ["", 'a "quoted" \\ one\n\t\x7f\u2028 é'])
def test_the_written_card_is_the_card(tmp_path: Path, template: str) -> None:
    path = tmp_path / "template.jinja"
    path.write_text(template)
    card = card_of("org/m", FACTS, Wishes(price=price_of("0.1/0.3/0.05"), chat_template=path))
    (table,) = tomllib.loads(written(card))["model"]
    assert Card.model_validate(table) == card
    settings = Settings.model_validate({"card": card.model_dump(exclude_none=True, exclude_defaults=True)})
    (model,) = load_catalog(settings)
    assert (model.card, model.engine.fit_context) == (card, True)
    assert [one.name for one in load_catalog(Settings.model_validate({"models": "all", "card": table}))][-1] == "org/m"


def test_a_template_that_cant_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"none.jinja can't be read"):
        card_of("org/m", FACTS, Wishes(chat_template=tmp_path / "none.jinja"))


def test_what_is_told_names_the_flags_and_what_is_missing() -> None:
    text = told(card_of("org/m", FACTS, Wishes()), FACTS)
    for words in ("chat, completions", "hermes", "--tool-call-parser", "free", "--price", "what the memory holds"):
        assert words in text
    bare = ModelFacts("generate", 128)
    assert "conversations will be refused" in told(card_of("org/m", bare, Wishes()), bare)
    scores = ModelFacts("score", 128)
    assert "--tool-call-parser" not in told(card_of("org/m", scores, Wishes()), scores)


def test_a_folder_is_called_by_its_last_part(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert name_of(f"{tmp_path}/mine/") == "mine"
    assert name_of("org/model") == "org/model"


@pytest.mark.parametrize("text", ["1", "1/2/3/4", "/1", "a/b", "-1/2", "1/0.12345678"])
def test_a_price_that_isnt_one_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        price(text)


def test_tokens_are_counted_from_one() -> None:
    assert positive("1") == 1
    with pytest.raises(ArgumentTypeError, match="1 or more"):
        positive("0")


@pytest.mark.parametrize(
    ("family", "template", "tools", "reasoning"),
    [
        ("qwen2", "<tool_call>", "hermes", None),
        ("qwen2", "<tool_call> <think>", "hermes", "deepseek_r1"),  # QwQ
        ("qwen3", "<tool_call> <think>", "hermes", "qwen3"),
        ("qwen3_moe", "<tool_call><function=", "qwen3_xml", None),
        ("llama", "ipython", "llama3_json", None),
        ("llama", "<tool_call>", "hermes", None),  # Hermes on Llama's weights
        ("llama", "", None, None),
        ("mistral", "[TOOL_CALLS]", "mistral", None),
        ("mistral", "[TOOL_CALLS][THINK]", "mistral", "mistral"),
        ("gemma3_text", "<start_of_turn>", None, None),
        ("gpt_oss", "", "openai", "openai_gptoss"),
        ("deepseek_v3", "thinking <｜tool▁calls▁begin｜>", "deepseek_v31", "deepseek_v3"),
    ],
)
def test_a_family_has_its_parsers(family: str, template: str, tools: str | None, reasoning: str | None) -> None:
    assert (parser_of(TOOL_CALLS, family, template), parser_of(REASONING, family, template)) == (tools, reasoning)


@pytest.mark.vllm
def test_vllm_has_every_parser_of_the_table() -> None:
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    assert {row.parser for row in TOOL_CALLS} <= set(ToolParserManager.list_registered())
    assert {row.parser for row in REASONING} <= set(ReasoningParserManager.list_registered())

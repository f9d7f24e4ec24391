"""Money, prices and costs: exact, whatever the number."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pricing
from pricing.cost import Tokens, cost, worst_case
from pricing.money import PICODOLLARS_MAX, InvalidAmount, Picodollars, format_usd, parse_usd, usd_number
from pricing.price import Price

amounts = st.integers(-PICODOLLARS_MAX, PICODOLLARS_MAX).map(Picodollars)
per_token = st.integers(0, 10**9)
counts = st.integers(0, 10**7)


@given(amounts)
def test_format_and_parse_round_trip(amount: Picodollars) -> None:
    text = format_usd(amount)
    assert parse_usd(text) == amount
    assert "e" not in text.lower()
    assert len(text.split(".")[1]) >= 2


@pytest.mark.parametrize(
    ("text", "amount", "written"),
    [
        ("0", 0, "0.00"),
        ("12.5", 12_500_000_000_000, "12.50"),
        ("0.13", 130_000_000_000, "0.13"),
        ("0.00035493", 354_930_000, "0.00035493"),
        ("0.000000000001", 1, "0.000000000001"),
        ("-3.5", -3_500_000_000_000, "-3.50"),
        ("007", 7 * 10**12, "7.00"),
        ("9223372.036854775807", PICODOLLARS_MAX, "9223372.036854775807"),
    ],
)
def test_amounts_are_read_exactly(text: str, amount: int, written: str) -> None:
    assert parse_usd(text) == amount
    assert format_usd(Picodollars(amount)) == written


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "$1", "1e3", "1,000", ".5", "5.", "+1", "--1", "NaN", "inf", "0x1", "١", "1\n", "0.0000000000001"],
)
def test_other_amounts_are_refused_and_named(text: str) -> None:
    with pytest.raises(InvalidAmount) as caught:
        parse_usd(text)
    assert repr(text) in str(caught.value)


def test_amounts_beyond_the_ledger_are_refused() -> None:
    with pytest.raises(InvalidAmount, match="more than the ledger holds"):
        parse_usd("9223372.036854775808")
    with pytest.raises(InvalidAmount) as caught:
        parse_usd("9" * 100_000)
    assert len(str(caught.value)) < 300


def test_the_json_number_is_the_nearest_float() -> None:
    assert usd_number(Picodollars(354_930_000)) == 0.00035493


def test_the_example_of_the_price_page() -> None:
    price = Price.per_million(input="0.59", output="0.79")
    assert format_usd(cost(price, Tokens(149, 0, 338))) == "0.00035493"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("0.1234567", "1"), "more than six decimals"),
        (("x", "1"), "The input price is wrong: 'x'"),
        (("1", "-1"), "output price is -"),
        (("1", "1", "1.01"), "above the input price"),
        (("1", "100000.000001"), "must be from 0 to"),
    ],
)
def test_prices_that_cannot_be_are_refused(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Price.per_million(*given)


def test_cached_tokens_cost_what_others_cost_without_a_price_of_their_own() -> None:
    assert Price.per_million("0.13", "0.40").cached_input == Price.per_million("0.13", "0.40").input
    price = Price.per_million("0.13", "0.40", "0.065")
    assert cost(price, Tokens(100, 60, 0)) == 40 * 130_000 + 60 * 65_000


@pytest.mark.parametrize("counts", [(-1, 0, 0), (1, 2, 0), (1, -1, 0), (1, 0, -1)])
def test_token_counts_that_cannot_be_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidAmount):
        Tokens(*counts)


@given(per_token, per_token, st.data())
def test_no_usage_costs_more_than_its_worst_case(input: int, output: int, data: st.DataObject) -> None:
    cached_input = data.draw(st.integers(0, input))
    price = Price(Picodollars(input), Picodollars(output), Picodollars(cached_input))
    prompt, completion_max = data.draw(counts), data.draw(counts)
    most = worst_case(price, prompt, completion_max)
    cached, completion = data.draw(st.integers(0, prompt)), data.draw(st.integers(0, completion_max))
    charge = cost(price, Tokens(prompt, cached, completion))
    assert charge == (prompt - cached) * input + cached * cached_input + completion * output
    assert 0 <= charge <= most


def test_a_worst_case_beyond_the_ledger_is_refused() -> None:
    with pytest.raises(InvalidAmount, match="Ask for fewer tokens"):
        worst_case(Price.per_million("100000", "100000"), 0, 10**9)


def test_no_float_touches_money() -> None:
    """Division and float literals appear in `usd_number`, and elsewhere only where milliseconds become seconds."""
    allowed = {"money.py": 1, "writer.py": 6, "ledger.py": 2, "directory.py": 2, "drivers.py": 2}
    for path in Path(pricing.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        found = [
            node
            for node in ast.walk(tree)
            if (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div))
            or (isinstance(node, ast.Constant) and isinstance(node.value, float))
            or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float")
        ]
        assert len(found) <= allowed.get(path.name, 1 if path.parent.name == "migrations" else 0), path

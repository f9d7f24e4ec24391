"""The input of a custom tool, out of the arguments that a model writes, in whatever pieces they come."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.encoders.custom_input import CustomInput, custom_input
from gateway.protocol.tools import custom_arguments

TEXT = 'say "hi" \\ now\n\tπ 😀 \u2028 end'


def read(pieces: list[str]) -> tuple[list[str], str]:
    """What each piece told, and the whole."""
    reader = CustomInput()
    told = [reader.feed(piece) for piece in pieces]
    return [*told, reader.end()], reader.text


@given(st.text(), st.booleans(), st.lists(st.integers(0, 200)))
def test_any_text_comes_back_in_any_pieces(text: str, ascii_only: bool, cuts: list[int]) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=ascii_only)
    places = [0, *sorted(min(cut, len(arguments)) for cut in cuts), len(arguments)]
    pieces = [arguments[start:end] for start, end in pairwise(places)]
    told, whole = read(pieces)
    assert "".join(told) == whole == text


def test_it_is_told_as_it_comes() -> None:
    told, _ = read(list(custom_arguments(TEXT)))
    assert len([piece for piece in told if piece]) == len(TEXT)
    assert custom_input(custom_arguments(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"patch": "x"}', '{"patch": "x"}'),
        ("just text", "just text"),
        ('"a string"', '"a string"'),
        ('{"input": 7}', '{"input": 7}'),
        ('{"why": "so", "input": "x"}', "x"),
        ('{"input": "x", "more": 1}', "x"),
        ('{ "input" : "raw\nline" }', "raw\nline"),
        ('{"input": "cut o', "cut o"),
        ('{"input": "cut \\u00', "cut "),
        ("", ""),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_arguments_that_are_something_else_lose_nothing(arguments: str, text: str, at_once: bool) -> None:
    told, whole = read([arguments] if at_once else list(arguments))
    assert "".join(told) == whole == text

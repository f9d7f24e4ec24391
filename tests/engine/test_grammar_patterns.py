"""Regular expressions: what is kept means the same to Python, and what isn't is refused with the reason."""

import itertools
import json
import re

import pytest

from engine.grammar.errors import Refused
from engine.grammar.patterns import any_text, whole, within_json
from tests.engine.grammar_walks import accepts, of_expression, of_schema, walks

KEPT = [
    "abc",
    "a|b|",
    "(yes|no), [a-f]{3}",
    r"\d{3}-\w+\s\S",
    r"^[A-Z][a-z]*$",
    "[^abc]{2}",
    r"[\w.-]+@[a-z]+\.(com|org)",
    r"\.\*\+\?\(\)\[\]\{\}\|\^\$\\/",
    r"[\]\-\\^a]{2}",
    r"\u00e9\x41\u{1F600}\ud83d\ude00",
    "é[à-ü]😀",
    ".{1,4}",
    "a{0}b",
    "x{2,}?y*?z+?",
    "(?:a(?<name>b|c))+",
    r"[\d\W]{3}",
    r"\t\n\r\f\v\0",
    "a.}]",
    "^a$|^b$",
    "()",
    "",
    r"\D\S\W",
]
REFUSED = {
    "(?P<y>[0-9]{4})": "`(?P`",
    "(?i)yes": "`(?i`",
    "(?s).": "`(?s`",
    r"\p{L}+": r"`\p`",
    "(?=a)b": "a lookahead",
    "^(?!a).*$": "a lookahead",
    "(?<=a)b": "a lookbehind",
    r"(a)\1": r"`\1`",
    r"\bword\b": r"`\b`",
    r"a\Z": r"`\Z`",
    "a++": "possessive",
    "a(^b)": "`^`",
    "a^b": "`^`",
    "a$b": "`$`",
    "(" * 65 + ")" * 65: "64 groups",
    "a{100001}": "100000 repeats",
}
BROKEN = {
    "foo**": "repeats nothing",
    "a{1000}{1000}": "repeats nothing",
    "*a": "repeats nothing",
    "(unclosed": "isn't closed",
    "a)": "closes no group",
    "[z-a]": "range",
    "[a-": "ends too soon",
    "[]": "empty",
    "a{,3}": "starts no repeat",
    "a{3,1}": "wrong way round",
    r"\x4": "hexadecimal",
    r"\ud83d": "surrogate",
    "\\": "ends too soon",
}


# What ends in a repeat or may be nothing, in what may be left out: xgrammar 0.2.8 takes "bb" for the first.
OPTIONAL = [
    "(?:xb+)?",
    "(?:xb*)?",
    "(?:xb{2,})?",
    "(?:b+)?x",
    "(?:x|xb+)?",
    "(?:(?:xb+)?)?",
    "(?:x(?:xb+)?)?b",
    "(?:xb+)*",
    "(?:xb+){0,2}",
    "(?:xb+)?(?:bx+)?",
    "(?:xb*)+",
    "(?:x*b*)+x",
    "(?:x?b?){2}",
    "(?:xb+|)x",
    "(?:|xb+)",
    "(?:xb+)??b",
    "x(?:bx?)?",
    "(?:x?)+b",
]
TEXTS = ["".join(letters) for length in range(5) for letters in itertools.product("xb", repeat=length)]


def for_python(pattern: str) -> str:
    """What is written otherwise in Python."""
    return pattern.replace("(?<name>", "(?P<name>").replace(r"\u{1F600}", "😀").replace(r"\ud83d\ude00", "😀")


@pytest.mark.parametrize("pattern", KEPT)
def test_an_answer_of_a_kept_expression_matches_it(pattern: str) -> None:
    texts = list(walks(of_expression(whole(pattern, "regex")), 60, 1))
    assert len(texts) > 20
    for text in texts:
        assert re.fullmatch(for_python(pattern), text), text


@pytest.mark.parametrize("pattern", KEPT)
def test_a_string_of_a_kept_pattern_is_json_and_matches_it(pattern: str) -> None:
    texts = list(walks(of_schema({"type": "string", "pattern": within_json(pattern, "pattern")}), 60, 1))
    assert len(texts) > 20
    for text in texts:
        assert re.search(for_python(pattern), json.loads(text)), text


@pytest.mark.parametrize("pattern", OPTIONAL)
def test_what_may_be_left_out_means_the_same_to_python(pattern: str) -> None:
    grammar = of_expression(whole(pattern, "regex"))
    quoted = of_schema({"type": "string", "pattern": within_json(pattern, "pattern")})
    fits = [text for text in TEXTS if re.fullmatch(pattern, text)]
    assert [text for text in TEXTS if accepts(grammar, text)] == fits
    assert [text for text in TEXTS if accepts(quoted, json.dumps(text))] == fits


@pytest.mark.parametrize(("pattern", "reason"), REFUSED.items())
def test_what_cannot_be_kept_is_refused_with_its_reason(pattern: str, reason: str) -> None:
    for read in (whole, within_json):
        with pytest.raises(Refused, match=re.escape(reason)) as caught:
            read(pattern, "response_format.regex")
        assert caught.value.unsupported
        assert caught.value.place == "response_format.regex"


@pytest.mark.parametrize(("pattern", "reason"), BROKEN.items())
def test_what_is_no_expression_is_refused_with_its_reason(pattern: str, reason: str) -> None:
    for read in (whole, within_json):
        with pytest.raises(Refused, match=re.escape(reason)) as caught:
            read(pattern, "response_format.regex")
        assert not caught.value.unsupported


@pytest.mark.parametrize(
    ("pattern", "fits", "not_fits"),
    [
        ("^x", ["x", "xyz"], ["ax"]),
        ("x$", ["x", "yzx"], ["xa"]),
        ("^x$", ["x"], ["xx"]),
        ("x", ["x"], ["ax", "xa"]),  # its writer means the whole
        ("^a|b$", ["a", "az", "zb"], ["za", "bz"]),
    ],
)
def test_a_pattern_is_open_where_its_writer_left_it_open(pattern: str, fits: list[str], not_fits: list[str]) -> None:
    grammar = of_schema({"type": "string", "pattern": within_json(pattern, "pattern")})
    assert all(accepts(grammar, json.dumps(text)) for text in fits)
    assert not any(accepts(grammar, json.dumps(text)) for text in not_fits)


@pytest.mark.parametrize(("least", "most"), [(0, 3), (2, 2), (4, None), (100, 200)])
def test_strings_of_a_length_are_json(least: int, most: int | None) -> None:
    """The converter's own let control characters through."""
    texts = list(walks(of_schema({"type": "string", "pattern": any_text(least, most)}), 60, 1))
    assert len(texts) > 20
    assert all(least <= len(json.loads(text)) <= (most or 10_000) for text in texts)

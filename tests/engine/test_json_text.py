"""A model's JSON: what no reader takes is mended, whatever the pieces it comes in, and all else stays as it is."""

import random

import pytest

from engine.json_text import Mended, mended, parsed_object

MENDED = {
    r'{"n": "\ud83d"}': r'{"n": "\ufffd"}',
    r'{"n": "\ud83d\ude00"}': r'{"n": "\ud83d\ude00"}',
    r'{"n": "\\ud83d"}': r'{"n": "\\ud83d"}',
    r'{"n": "\\\ud83d"}': r'{"n": "\\\ufffd"}',
    r'{"n": "\ude00\ud83d\ud83d\ude00"}': r'{"n": "\ufffd\ufffd\ud83d\ude00"}',
    r'{"n": "\ud83d\u0041\uD83D\n"}': r'{"n": "\ufffd\u0041\ufffd\n"}',
    '{"n": "a\ud83d"}': '{"n": "a\ufffd"}',
    r'"\u12zz\ud800"': r'"\u12zz\ufffd"',
    r'{"n": "\ud8': r'{"n": "\ud8',
    r'{"n": "\ud83d': r'{"n": "\ufffd',
    r'"\ud83d' + "\\": r'"\ufffd' + "\\",
    '{"n": Infinity, "m": [-Infinity, NaN, -1], "s": "Infinity NaN"}': (
        '{"n": null, "m": [null, null, -1], "s": "Infinity NaN"}'
    ),
    '{"n": 1e999}': '{"n": 1e999}',
    "-": "-",
    "In no case NaN": "In no case null",
    "": "",
}


@pytest.mark.parametrize("text", MENDED)
def test_what_no_reader_takes_is_mended(text: str) -> None:
    assert mended(text) == MENDED[text]


@pytest.mark.parametrize("text", MENDED)
def test_pieces_come_to_the_same(text: str) -> None:
    chance = random.Random(len(text))
    for _ in range(100):
        mending, whole, at = Mended(), "", 0
        while at < len(text):
            size = chance.randint(1, 5)
            whole += mending.feed(text[at : at + size])
            at += size
        assert whole + mending.end() == MENDED[text]


def test_an_object_has_only_what_json_can_say() -> None:
    assert parsed_object(r'{"a": 1e999, "b": Infinity, "c": "\ud83d", "d": 1.5}') == {
        "a": None,
        "b": None,
        "c": "\ufffd",
        "d": 1.5,
    }


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a":' * 3000 + "1" + "}" * 3000], ids=["", "list", "cut", "deep"])
def test_what_is_no_object_is_none(text: str) -> None:
    assert parsed_object(text) is None

"""What a model writes, so that every reader of JSON takes it: whole characters, and numbers that JSON knows.

Parsers of tool calls read a model's JSON with Python's `json` and write it anew. That module takes half of a surrogate
pair for a character, which UTF-8 can't hold, and writes a number beyond 1.8e308 as `Infinity`, which isn't JSON.
"""

import json
import math
import re
from typing import Any

_LONE = re.compile("[\ud800-\udfff]")
_SUSPECT = re.compile(r"\\u[dD][89a-fA-F]|Infinity|NaN|[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"

# The tokens of JSON text as far as they matter here. Within a string: halves of pairs; outside: what is no number.
_IN_STRING = re.compile(
    r'(?P<plain>(?:[^"\\]|\\[^u]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4})+)|(?P<end>")'
    r"|\\u(?:(?P<pair>[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(?P<half>[dD][89a-fA-F][0-9a-fA-F]{2}))"
)
_OUTSIDE = re.compile(r'(?P<plain>(?:[^"\-IN]|-(?!I|\Z))+)|(?P<begin>")|(?P<no_number>-?Infinity|NaN)')
# What may be the beginning of a token that matters, at the end of a piece.
_OPEN_IN_STRING = re.compile(r"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?\Z")
_OPEN_OUTSIDE = re.compile(r"(?:-(?:I|In|Inf|Infi|Infin|Infini|Infinit)?|I|In|Inf|Infi|Infin|Infini|Infinit|N|Na)\Z")


def whole_characters(text: str) -> str:
    """With U+FFFD for each half of a surrogate pair."""
    return text if text.isascii() else _LONE.sub(_REPLACEMENT, text)


class Mended:
    """The text of a JSON value in pieces: halves of surrogate pairs, escaped or not, become U+FFFD, and `Infinity` and
    `NaN` become null, as in JavaScript. All else stays as it was written, valid or not."""

    def __init__(self) -> None:
        self._in_string = False
        self._held = ""

    def feed(self, piece: str) -> str:
        """The next piece, but for an end whose meaning only the piece after it tells."""
        text = self._held + whole_characters(piece)
        self._held = ""
        mended, at = [], 0
        while at < len(text):
            if (_OPEN_IN_STRING if self._in_string else _OPEN_OUTSIDE).match(text, at):
                self._held = text[at:]
                break
            token, at = self._token(text, at)
            mended.append(token)
        return "".join(mended)

    def end(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return _cut_off(held)

    def _token(self, text: str, at: int) -> tuple[str, int]:
        found = (_IN_STRING if self._in_string else _OUTSIDE).match(text, at)
        if found is None:  # an escape that isn't one, or a letter
            return text[at], at + 1
        kind = found.lastgroup
        if kind in ("begin", "end"):
            self._in_string = kind == "begin"
        replaced = {"half": "\\ufffd", "no_number": "null"}.get(kind or "")
        return replaced if replaced is not None else found[0], found.end()


def _cut_off(held: str) -> str:
    """An escape or number that the end of the text cut off: half a pair is one nevertheless."""
    return re.sub(r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\ufffd", held)


def mended(text: str) -> str:
    """All of it at once."""
    if _SUSPECT.search(text) is None:
        return text
    whole = Mended()
    return whole.feed(text) + whole.end()


def parsed_object(text: str) -> dict[str, Any] | None:
    """The object that the text is, without what JSON can't say; None where it is none, or too deep for Python."""
    try:
        found = json.loads(mended(text), parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None

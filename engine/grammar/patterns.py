"""Regular expressions, read and written again so that every engine for them means the same.

What is read is the common part of ECMA-262's and Python's syntax. What is written uses nothing but characters,
classes of ranges, groups, alternatives and repeats: the converters behind the grammars ignore or misread what they
don't know (anchors in the middle, lookaheads, escapes that they have no name for).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.grammar.characters import ALL, CLASSES, DOT, SURROGATES, Ranges, is_single, union, without, write
from engine.grammar.errors import Refused

REPEATS_MAX = 100_000
DEPTH_MAX = 64
_CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D}


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part, written; `empty` says that it may match nothing."""

    text: str
    empty: bool = False


@dataclass(frozen=True, slots=True)
class _Branch(_Piece):
    """One alternative; `opened` and `closed` say that it had `^` and `$`."""

    opened: bool = False
    closed: bool = False


def whole(pattern: str, place: str) -> str:
    """For a whole answer: the expression matches from its first character to its last. Raises Refused."""
    return _alternatives(_Reader(pattern, place, json=False).read()).text


def within_json(pattern: str, place: str) -> str:
    """For the text between the quotes of a JSON string. Raises Refused.

    JSON Schema searches for a pattern. One that has neither `^` nor `$` is held to the whole string, which is what its
    writers mean and fits the schema too; one that has one of them is open at its other end.
    """
    anything = write(DOT, json=True) + "*"
    written: list[_Piece] = []
    for branch in _Reader(pattern, place, json=True).read():
        before = anything if branch.closed and not branch.opened else ""
        after = anything if branch.opened and not branch.closed else ""
        written.append(_Piece(f"{before}{branch.text}{after}", branch.empty))
    return f"^{written[0].text}$" if len(written) == 1 else f"^(?:{_alternatives(written).text})$"


def any_text(least: int, most: int | None) -> str:
    """A pattern for the text between the quotes of a JSON string of so many characters."""
    return f"^{write(ALL, json=True)}{{{least},{'' if most is None else most}}}$"


class _Reader:
    """Recursive descent over one expression; what it returns is written already."""

    def __init__(self, pattern: str, place: str, *, json: bool) -> None:
        self._pattern = pattern
        self._place = place
        self._json = json
        self._at = 0
        self._depth = 0

    def read(self) -> list[_Branch]:
        branches = self._branches()
        if self._at < len(self._pattern):
            raise self._refused("`)` closes no group", unsupported=False)
        return branches

    def _branches(self) -> list[_Branch]:
        branches = [self._branch()]
        while self._next("|"):
            branches.append(self._branch())
        return branches

    def _branch(self) -> _Branch:
        written: list[_Piece] = []
        opened = closed = False
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            if closed:
                raise self._refused("`$` in the middle")
            if self._next("^"):
                if written or self._depth:
                    raise self._refused("`^` in the middle")
                opened = True
            elif self._next("$"):
                if self._depth:
                    raise self._refused("`$` in the middle")
                closed = True
            else:
                written.append(self._repeated(self._atom()))
        text, empty = "".join(piece.text for piece in written), all(piece.empty for piece in written)
        return _Branch(text, empty, opened, closed)

    def _atom(self) -> _Piece:
        character = self._take()
        if character == "(":
            return self._group()
        if character == "[":
            return _Piece(write(self._class(), json=self._json))
        if character == ".":
            return _Piece(write(DOT, json=self._json))
        if character == "\\":
            return _Piece(write(self._escape(in_class=False), json=self._json))
        if character in "*+?{":
            raise self._refused(f"`{character}` repeats nothing, or a repeat", unsupported=False)
        return _Piece(write(self._character(ord(character)), json=self._json))

    def _repeated(self, atom: _Piece) -> _Piece:
        sign = self._pattern[self._at : self._at + 1]
        if not sign or sign not in "*+?{":
            return atom
        self._at += 1
        least, most = self._bounds() if sign == "{" else _SIGNS[sign]
        if not self._next("?") and self._pattern[self._at : self._at + 1] == "+":
            raise self._refused("a possessive repeat (`++`)")
        return _repeat(atom, least, most)

    def _bounds(self) -> tuple[int, int | None]:
        least = self._number()
        most: int | None = least
        if self._next(","):
            most = None if self._pattern[self._at : self._at + 1] == "}" else self._number()
        if not self._next("}"):
            raise self._refused("`{` starts no repeat; write `\\{` for the character", unsupported=False)
        if most is not None and most < least:
            raise self._refused(f"`{{{least},{most}}}` has its bounds the wrong way round", unsupported=False)
        return least, most

    def _number(self) -> int:
        start = self._at
        while self._at < len(self._pattern) and self._pattern[self._at] in "0123456789" and self._at - start < 9:
            self._at += 1
        if start == self._at:
            raise self._refused("`{` starts no repeat; write `\\{` for the character", unsupported=False)
        number = int(self._pattern[start : self._at])
        if number > REPEATS_MAX:
            raise self._refused(f"more than {REPEATS_MAX} repeats")
        return number

    def _group(self) -> _Piece:
        if self._next("?"):
            self._named_or_plain()
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._refused(f"more than {DEPTH_MAX} groups in each other")
        inner = _alternatives(self._branches())
        self._depth -= 1
        if not self._next(")"):
            raise self._refused("a group isn't closed", unsupported=False)
        return _Piece(f"(?:{inner.text})", inner.empty)

    def _named_or_plain(self) -> None:
        if self._next(":"):
            return
        rest = self._pattern[self._at : self._at + 2]
        if rest[:1] in ("=", "!"):
            raise self._refused(f"a lookahead (`(?{rest[:1]}`)")
        if rest in ("<=", "<!"):
            raise self._refused(f"a lookbehind (`(?{rest}`)")
        end = self._pattern.find(">", self._at)
        if not rest.startswith("<") or not self._pattern[self._at + 1 : end].isidentifier():
            raise self._refused(f"`(?{rest[:1]}`: flags, and what is special to one dialect,")
        self._at = end + 1

    def _class(self) -> Ranges:
        negated = self._next("^")
        ranges: Ranges = ()
        while not self._next("]"):
            low = self._class_item()
            if self._pattern[self._at : self._at + 1] == "-" and self._pattern[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                high = self._class_item()
                if not (is_single(low) and is_single(high)) or high[0][0] < low[0][0]:
                    raise self._refused("a range of a class has no beginning or no end", unsupported=False)
                low = ((low[0][0], high[0][0]),)
            ranges += low
        if not ranges:
            raise self._refused("a class of characters is empty", unsupported=False)
        found = without(ALL, union(ranges)) if negated else without(ranges, SURROGATES)
        if not found:
            raise self._refused("a class of characters is empty", unsupported=False)
        return found

    def _class_item(self) -> Ranges:
        character = self._take()
        return self._escape(in_class=True) if character == "\\" else self._character(ord(character))

    def _escape(self, *, in_class: bool) -> Ranges:
        character = self._take()
        if character in CLASSES:
            return CLASSES[character]
        if character in _CONTROLS:
            return self._character(_CONTROLS[character])
        if character == "b" and in_class:
            return self._character(0x08)
        if character == "0" and not self._pattern[self._at : self._at + 1].isdigit():
            return self._character(0)
        if character == "x":
            return self._character(self._hexadecimal(2))
        if character == "u":
            return self._character(self._code_point())
        if character.isalnum():
            raise self._refused(f"the escape `\\{character}`")
        return self._character(ord(character))

    def _code_point(self) -> int:
        if self._next("{"):
            end = self._pattern.find("}", self._at)
            point = self._hexadecimal(max(end - self._at, 0))
            self._at += 1
            return point
        point = self._hexadecimal(4)
        if 0xD800 <= point < 0xDC00 and self._pattern.startswith("\\u", self._at):
            self._at += 2
            point = 0x10000 + ((point - 0xD800) << 10) + (self._hexadecimal(4) - 0xDC00)
        return point

    def _hexadecimal(self, digits: int) -> int:
        text = self._pattern[self._at : self._at + digits]
        self._at += digits
        if not 0 < digits <= 6 or len(text) < digits or not all(digit in "0123456789abcdefABCDEF" for digit in text):
            raise self._refused("an escape `\\x` or `\\u` has too few hexadecimal digits", unsupported=False)
        return int(text, 16)

    def _character(self, point: int) -> Ranges:
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            raise self._refused("half of a surrogate pair", unsupported=False)
        return ((point, point),)

    def _take(self) -> str:
        if self._at >= len(self._pattern):
            raise self._refused("the expression ends too soon", unsupported=False)
        self._at += 1
        return self._pattern[self._at - 1]

    def _next(self, character: str) -> bool:
        found = self._pattern[self._at : self._at + 1] == character
        self._at += found
        return found

    def _refused(self, what: str, *, unsupported: bool = True) -> Refused:
        verdict = f"can't be kept: {what} is not supported" if unsupported else f"is not a regular expression: {what}"
        return Refused(f"`{self._place}` {verdict} (at character {self._at}).", self._place, unsupported=unsupported)


_SIGNS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def _repeat(piece: _Piece, least: int, most: int | None) -> _Piece:
    """So many times the piece, in the one way that xgrammar reads as everybody else does.

    Its `?` leaves out the beginning of a group that ends in a repeat, so that `(?:xb+)?` takes "bb"; and so does a
    repeat from one on of what may be nothing.
    """
    if piece.empty:
        least = 0
    if most == least:
        sign = f"{{{least}}}"
    elif most is None:
        sign = "*" if least == 0 else f"{{{least},}}"
    else:
        sign = f"{{{least},{most}}}"
    return _Piece(f"{piece.text}{sign}", piece.empty or least == 0)


def _alternatives(written: Sequence[_Piece]) -> _Piece:
    full = [piece for piece in written if piece.text]
    if not full:
        return _Piece("", empty=True)
    text = "|".join(piece.text for piece in full)
    if len(full) < len(written):
        return _repeat(_Piece(f"(?:{text})"), 0, 1)
    return _Piece(text, any(piece.empty for piece in full))

"""A rendered prompt into pieces whose tokens don't depend on each other, and the tokens of those seen before.

A tokenizer first looks for its added tokens in the text as it came, leftmost and longest first, and does all the rest
(normalizing, splitting into words, merging) to what lies between them. So a text may be cut before such a token: what
comes before it ends there in any case, and what comes after it begins with it either way. That includes the token that
swallows the whitespace after it, and a tokenizer that treats a text's very beginning in a way of its own: no piece but
the first begins with anything else than a token. What is no place to cut: a token that swallows whitespace before it,
and any where a token counts only between words (`single_word`).
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from sys import getsizeof
from typing import Protocol

# With whom the current task's request shares what is remembered of earlier prompts. None: with everybody; "": with
# nobody, and nothing is remembered.
SHARES_WITH: ContextVar[str | None] = ContextVar("shares_with", default="")

MIB = 2**20
HALVES = "surrogatepass"  # of surrogate pairs: what a tokenizer makes of them is its own affair
# A text of more pieces is tokenized whole: looking each of them up takes longer than that.
PIECES_MAX = 8192
# Of a piece that is kept: its place in the table and its list, beside the text and 8 bytes for each token.
ENTRY_BYTES = 250
# One piece may take this part of the cache: an enormous one would empty it.
SHARE_MAX = 4


@dataclass(frozen=True, slots=True)
class TokenizingLimits:
    """`cache_bytes_max`: for the tokens of pieces seen before, 0 for none. `fast`: use `fastokens` where it can."""

    cache_bytes_max: int = 64 * MIB
    fast: bool = True


class AddedToken(Protocol):
    """`tokenizers.AddedToken`."""

    @property
    def content(self) -> str: ...
    @property
    def single_word(self) -> bool: ...
    @property
    def lstrip(self) -> bool: ...
    @property
    def normalized(self) -> bool: ...


class Cuts:
    """Where a text may be cut. `found` is false where this tokenizer's can't."""

    def __init__(self, added: Iterable[AddedToken]) -> None:
        # Those that are `normalized` are looked for within what lies between the others, after these.
        tokens = [token for token in added if token.content and not token.normalized]
        self._places = frozenset(
            token.content.encode() for token in tokens if not token.lstrip and not token.content[0].isspace()
        )
        self.found = bool(self._places) and not any(token.single_word for token in tokens)
        self._pattern = re.compile(_longest_first([token.content.encode() for token in tokens]))

    def pieces(self, text: str) -> list[bytes] | None:
        """The pieces, in order; None where there are very many.

        In UTF-8: one emoji makes each character of a Python text four bytes, to be searched, hashed and kept.
        """
        places, whole = self._places, text.encode(errors=HALVES)
        at = [found.start() for found in self._pattern.finditer(whole) if found[0] in places]
        if len(at) > PIECES_MAX:
            return None
        if not at or at[0] > 0:
            at.insert(0, 0)
        at.append(len(whole))
        return [whole[start:end] for start, end in pairwise(at)]


def _longest_first(words: Iterable[bytes]) -> bytes:
    """A pattern that finds any of the words, the longest of those that begin at a place. As a tree, since an
    alternation of hundreds would try each of them wherever one may begin."""
    tree = _Node()
    for word in words:
        node = tree
        for byte in word:
            node = node.setdefault(byte, _Node())
        node.ends = True
    return tree.pattern()


class _Node(dict[int, "_Node"]):
    """What may follow a beginning, by its next byte; `ends`: the beginning is a word."""

    ends = False

    def pattern(self) -> bytes:
        node, alike = self, bytearray()
        while len(node) == 1 and not node.ends:
            [(byte, node)] = node.items()
            alike.append(byte)
        if not node:
            return re.escape(bytes(alike))
        ways = b"|".join(re.escape(bytes([byte])) + below.pattern() for byte, below in node.items())
        return re.escape(bytes(alike)) + b"(?:" + ways + (b")?" if node.ends else b")")


class TokenCache:
    """The tokens of pieces of text, up to a number of bytes; what wasn't asked for the longest leaves first.

    Each piece is kept for those that it was `whose`, since how long a prompt takes tells whether its pieces were known.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._known: OrderedDict[tuple[str | None, bytes], list[int]] = OrderedDict()
        self._lock = threading.Lock()
        self._same: list[int] = []

    def __len__(self) -> int:
        return len(self._known)

    def tokens(
        self, pieces: Sequence[bytes], whose: str | None, encode: Callable[[list[str]], list[list[int]]]
    ) -> list[int]:
        """Those of all pieces, one after the other; what isn't known goes to `encode`, each different piece once."""
        known, found, new = self._known, dict[bytes, list[int]](), list[bytes]()
        with self._lock:
            for piece in pieces:
                if piece in found:
                    continue
                tokens = known.get((whose, piece))
                if tokens is None:
                    new.append(piece)
                    tokens = []
                else:
                    known.move_to_end((whose, piece))
                found[piece] = tokens
        for piece, made in zip(new, encode(_texts(new)) if new else (), strict=True):
            found[piece] = made
        if new:
            self._keep(new, found, whose)
        together: list[int] = []
        for piece in pieces:
            together += found[piece]
        return together

    def _keep(self, new: list[bytes], found: dict[bytes, list[int]], whose: str | None) -> None:
        with self._lock:
            for piece in new:
                tokens = found[piece] = self._shared(found[piece])
                size = _size(piece, tokens)
                if size * SHARE_MAX > self.bytes_max:
                    continue
                before = self._known.pop((whose, piece), None)  # another thread's
                self._known[whose, piece] = tokens
                self.bytes += size if before is None else 0
            while self.bytes > self.bytes_max:
                (_, piece), tokens = self._known.popitem(last=False)
                self.bytes -= _size(piece, tokens)

    def _shared(self, tokens: list[int]) -> list[int]:
        """The same numbers, each of them one object for all lists: 8 bytes a token, not 36."""
        same = self._same
        highest = max(tokens, default=0)
        while len(same) <= highest:
            same.append(len(same))
        return [same[token] for token in tokens]


def _texts(pieces: list[bytes]) -> list[str]:
    return [piece.decode(errors=HALVES) for piece in pieces]


def _size(piece: bytes, tokens: list[int]) -> int:
    return ENTRY_BYTES + getsizeof(piece) + 8 * len(tokens)

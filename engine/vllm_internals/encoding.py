"""A Hugging Face tokenizer called past transformers, with `fastokens` in its place where that gives the same.

Transformers makes lists of offsets and masks that nobody reads: for a prompt of 8,000 tokens that was a quarter of the
front end's CPU. `fastokens` takes a tenth to a fiftieth of the time of `tokenizers`; it is made from the same JSON, and
refuses what it doesn't know. Both it and the cutting of texts (`engine.tokenizing`) are compared with the tokenizer at
the start, and left out where one text gives other tokens.
"""

import logging
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import fastokens
from tokenizers import Tokenizer

from engine.errors import PromptTooLong
from engine.tokenizing import Cuts, TokenCache, TokenizingLimits

_log = logging.getLogger("farebox.engine")

Encode = Callable[[list[str], bool], list[list[int]]]  # texts, and whether special tokens are added around them

# A text of more characters for each token of the context is tokenized in pieces, and no further than it takes to know
# that it is too long: the whole takes seconds and a gigabyte.
TOKEN_CHARACTERS = 8
PIECE_CHARACTERS = 2**16
CUT_SHARE, CUT_TOKENS = 1.1, 1000  # what cutting a text anywhere may add, more than generously

# What a tokenizer is compared on: characters that normalizers change, that regular expressions tell apart, that take
# several bytes or join others; and what models write.
_SAMPLES = 200
_BLOCKS = (
    *((0x20, 0x7F),) * 4,
    (0x00, 0x20),
    (0xA0, 0x370),
    (0x370, 0x530),
    (0x590, 0x700),
    (0x900, 0xE80),
    (0x1100, 0x1200),
    (0x2000, 0x2070),
    (0x2E80, 0xA000),
    (0xAC00, 0xD7A4),
    (0xFE00, 0x10000),
    (0x1F300, 0x1FB00),
)
_WORDS = (
    *(" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", " \n ", "    "),
    *("Grüße, ", "你好!", "def f(x):\n    return x**2  # ", "'s", "I'LL", "don't", "12345678", "3.14", "e\u0301"),
    *("\u1e9b\u0323", "ﬁ", "İ", "ſ", "🎉", "👩\u200d👧", "https://example.com/a?b=c#d", '{"n": [1, -2e5]}', "_x9"),
    *("...", "—", "a" * 50, "ה", "ไทย", "हिन्दी", "한국어", "  x"),
)


class Encoder:
    """See `of`."""

    def __init__(self, encode: Encode, context: int, cuts: Cuts | None, cache: TokenCache | None) -> None:
        self._encode = encode
        self._context = context
        self._cuts = cuts
        self.cache = cache

    @classmethod
    def of(cls, tokenizer: Any, context: int, limits: TokenizingLimits) -> "Encoder | None":
        """For a tokenizer of transformers; None where `tokenizers` alone doesn't give what it gives.

        Transformers changes truncation and padding of the one that it holds, so this has its own.
        """
        backend = getattr(tokenizer, "_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            return None
        own = deepcopy(backend)
        own.no_truncation()
        own.no_padding()
        plain = _plainly(own)
        added = list(own.get_added_tokens_decoder().values())
        samples = list(_samples([token.content for token in added]))
        for special in (False, True):
            for text, tokens in zip(samples, plain(samples, special), strict=True):
                if tokenizer(text, add_special_tokens=special)["input_ids"] != tokens:
                    return None
        encode = (_fast(own, plain, samples) if limits.fast else None) or plain
        cuts = Cuts(added)
        if not limits.cache_bytes_max or not _cuts_are_right(own, cuts, plain, samples):
            return cls(encode, context, None, None)
        return cls(encode, context, cuts, TokenCache(limits.cache_bytes_max))

    def encode(self, text: str, special: bool, whose: str | None = "") -> list[int]:
        """The ids of a text; with `special`, those around it too.

        `whose` is as `engine.tokenizing.SHARES_WITH`: among whom pieces of the text are remembered.
        Raises PromptTooLong where counting the tokens of what can't fit would take too long.
        """
        if len(text) > TOKEN_CHARACTERS * self._context:
            refuse_if_too_long(text, self._context, lambda piece: len(self._encode([piece], False)[0]))
        if self._cuts is not None and self.cache is not None and not special and whose != "":
            pieces = self._cuts.pieces(text)
            if pieces is not None:
                return self.cache.tokens(pieces, whose, lambda new: self._encode(new, False))
        return self._encode([text], special)[0]


def refuse_if_too_long(text: str, context: int, count: Callable[[str], int]) -> None:
    tokens = 0
    for start in range(0, len(text), PIECE_CHARACTERS):
        tokens += count(text[start : start + PIECE_CHARACTERS])
        if tokens > CUT_SHARE * context + CUT_TOKENS:
            raise PromptTooLong(context)


def _plainly(tokenizer: Tokenizer) -> Encode:
    def encode(texts: list[str], special: bool) -> list[list[int]]:
        # The fast one doesn't keep track of where in the text each token stands.
        return [found.ids for found in tokenizer.encode_batch_fast(texts, add_special_tokens=special)]

    return encode


def _fast(tokenizer: Tokenizer, plain: Encode, samples: list[str]) -> Encode | None:
    """`fastokens`; None where it doesn't know this tokenizer's parts, or differs from it."""
    try:
        quick = fastokens.Tokenizer.from_json_str(tokenizer.to_str())

        def encode(texts: list[str], special: bool) -> list[list[int]]:
            return [quick.encode(text, add_special_tokens=special).ids for text in texts]

        different = any(encode(samples, special) != plain(samples, special) for special in (False, True))
    except Exception as error:  # whatever it doesn't know
        _log.info("Prompts are tokenized by `tokenizers`: `fastokens` doesn't take this tokenizer (%s).", error)
        return None
    if different:
        _log.info("Prompts are tokenized by `tokenizers`: `fastokens` differs from it on this tokenizer.")
        return None
    return encode


def _cuts_are_right(tokenizer: Tokenizer, cuts: Cuts, plain: Encode, samples: list[str]) -> bool:
    """Whether pieces have the tokens of the whole. They have by how `tokenizers` works, unless it is told to merge at
    random; the samples say that it still works so."""
    why = ""
    if not cuts.found:
        why = "the tokenizer has no special tokens to cut at"
    elif getattr(tokenizer.model, "dropout", None):
        why = "the tokenizer merges at random"
    else:
        for text, tokens in zip(samples, plain(samples, False), strict=True):
            pieces = [piece.decode() for piece in cuts.pieces(text) or [text.encode()]]
            if [token for piece in plain(pieces, False) for token in piece] != tokens:
                why = "pieces of its texts have other tokens than the whole"
    if why:
        _log.info("Tokens of earlier prompts aren't kept: %s.", why)
    return not why


def _samples(special: list[str]) -> Iterator[str]:
    """Texts of all kinds of characters, with special tokens, and halves of them, anywhere. The same ones each time."""
    chance = random.Random(17)

    def part() -> str:
        match chance.randrange(6):
            case 0 if special:
                return chance.choice(special)
            case 1 if special:
                token = chance.choice(special)
                return token[: chance.randrange(1, len(token) + 1)]
            case 2:
                start, end = chance.choice(_BLOCKS)
                return "".join(chr(chance.randrange(start, end)) for _ in range(chance.randrange(1, 12)))
            case _:
                return chance.choice(_WORDS)

    for _ in range(_SAMPLES):
        yield "".join(part() for _ in range(chance.randrange(1, 16)))
    yield ""

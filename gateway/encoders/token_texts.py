"""How the text of a delta divides among its tokens."""

from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise

from engine.tokens import Token

_decoder = getincrementaldecoder("utf-8")
_CONTINUATION = bytes(range(0x80, 0xC0))  # all but the first of a character's bytes


def shares(text: str, tokens: Sequence[Token]) -> list[str]:
    """A piece of the text for each token; joined they are exactly the text.

    A token's own text isn't always what it adds: a character belongs to the token that ends it, SentencePiece drops the
    space in front of the first word, and text that might become a stop string is held back. So each token takes its own
    text where the delta's goes on with it, and the last takes the rest.
    """
    return [text] if len(tokens) == 1 else list(pieces(text, tokens, _torn(tokens)))


def pieces(text: str, tokens: Iterable[Token], torn: int = 0) -> Iterator[str]:
    """`shares` one by one, for a text of many tokens. `torn` is how many bytes at the beginning are the end of a
    character."""
    decoder = _decoder("replace")
    start = 0
    for token, following in pairwise(chain(tokens, [None])):
        if token is None or following is None:
            yield text[start:]
            return
        ending = min(torn, len(token.data))
        torn -= ending
        own = decoder.decode(token.data[ending:])
        if ending and not torn:
            own = text[:1] + own
        forms = (own, own.removeprefix(" "), f" {own}")
        piece = next((form for form in forms if text.startswith(form, start)), "")
        yield piece
        start += len(piece)


def _torn(tokens: Sequence[Token]) -> int:
    """How many bytes at the beginning belong to a character that began in the delta before."""
    count = 0
    for token in tokens:
        rest = token.data.lstrip(_CONTINUATION)
        count += len(token.data) - len(rest)
        if rest:
            break
    return count

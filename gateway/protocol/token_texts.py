"""How the text of a delta divides among its tokens."""

from collections.abc import Sequence

from engine.base import TokenLogprob


def shares(text: str, tokens: Sequence[TokenLogprob]) -> list[str]:
    """A piece of the text for each token; joined they are exactly the text.

    A token decoded alone isn't always what it adds: half a character adds nothing, SentencePiece drops the space in
    front of a word, and text that might become a stop string is held back. So each token takes its own text where the
    delta's goes on with it, and the last takes the rest.
    """
    pieces = []
    start = 0
    for token in tokens[:-1]:
        piece = next((own for own in (token.text, f" {token.text}") if own and text.startswith(own, start)), "")
        pieces.append(piece)
        start += len(piece)
    return [*pieces, text[start:]] if tokens else pieces

"""What a client may have meant: a known name near to the one that it sent."""

import difflib
from collections.abc import Iterable
from itertools import islice

# Comparing two names takes the product of their lengths, and both may be the client's.
CHARACTERS_MAX = 48
NAMES_MAX = 64


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that is nearest, of the first 64."""
    shortened = {name[:CHARACTERS_MAX]: name for name in islice(known, NAMES_MAX)}
    near = difflib.get_close_matches(word[:CHARACTERS_MAX], shortened, n=1, cutoff=cutoff)
    return shortened[near[0]] if near else None

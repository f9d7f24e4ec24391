"""Tokens as an engine's vocabulary has them, and their log probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Token:
    """An entry of a vocabulary. `text` is its bytes, `data`, as UTF-8; those that are no whole character are written as
    OpenAI does, `\\xf0\\x9f`."""

    id: int
    text: str
    data: bytes
    special: bool = False


class Vocabulary(Protocol):
    """Every token of an engine, by its id."""

    def token(self, token_id: int) -> Token:
        """The same object for the same id; an empty token for an id that there isn't."""


class TokenLogprobs(NamedTuple):
    """One generated token and the likeliest ones at its place, as parallel lists of ids and natural-log probabilities.

    The generated token comes first, then the alternatives, likeliest first (it may be one of them). Every number is
    finite.
    """

    ids: Sequence[int]
    logprobs: Sequence[float]

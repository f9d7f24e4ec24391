"""Strings from outside, made fit for both databases and for error messages."""

from __future__ import annotations


def stored(text: str, length_max: int) -> str:
    """Cut to `length_max` characters, with what PostgreSQL can't hold (NUL, lone surrogates) replaced."""
    return text[:length_max].encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def shorten(value: object, length_max: int = 60) -> str:
    """What was sent, quoted, and cut so that an error message stays small."""
    text = repr(value[: length_max + 1] if isinstance(value, str) else value)
    return text if len(text) <= length_max else f"{text[:length_max]}..."

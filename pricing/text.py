"""Strings from outside, made fit for both databases."""

from __future__ import annotations

from pricing.errors import InvalidSetting
from pricing.money import shorten


def stored(text: str, length_max: int) -> str:
    """Cut to `length_max` characters, with what PostgreSQL can't hold (NUL, lone surrogates) replaced."""
    return text[:length_max].encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def checked_name(what: str, name: str, length_max: int = 200) -> str:
    """The name, if it is 1 to `length_max` printable characters without space around; else InvalidSetting."""
    if not 1 <= len(name) <= length_max or not name.isprintable() or name != name.strip():
        raise InvalidSetting(
            f"{shorten(name)} can't be the {what}: use 1 to {length_max} printable characters, no spaces around."
        )
    return name

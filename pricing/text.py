"""Names from outside."""

from __future__ import annotations

from storage.errors import InvalidSetting
from storage.text import shorten


def checked_name(what: str, name: str, length_max: int = 200) -> str:
    """The name, if it is 1 to `length_max` printable characters without space around; else InvalidSetting."""
    if not 1 <= len(name) <= length_max or not name.isprintable() or name != name.strip():
        raise InvalidSetting(
            f"{shorten(name)} can't be the {what}: use 1 to {length_max} printable characters, no spaces around."
        )
    return name


def harmless(value: object) -> object:
    """A cell of a CSV: a text that a spreadsheet would run as a formula is preceded by an apostrophe (OWASP, "CSV
    Injection")."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value

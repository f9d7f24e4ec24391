"""Content as other APIs than the chat route have it: a text, or a list of blocks that each say their `type`."""

import re
from collections.abc import Sequence

from pydantic import BeforeValidator, Discriminator, Field, Tag

from gateway.protocol.body import field_of
from gateway.protocol.messages import MESSAGES_MAX

# The two forms of content, for a union with the discriminator TEXT_OR_LIST. Only the form that was sent is looked at.
TEXT = Tag("is:text")
LIST = (Field(fail_fast=True, min_length=1, max_length=MESSAGES_MAX), Tag("is:list"))
MAYBE_EMPTY = (Field(fail_fast=True, max_length=MESSAGES_MAX), Tag("is:list"))
TEXT_OR_LIST = Discriminator(lambda value: "is:text" if isinstance(value, str) else "is:list")


# Blocks of content that isn't text.
MEDIA = ("image", "document", "input_image", "input_file", "input_audio")

# For a union of blocks whose tags are `block:` and the type.
BY_TYPE = Discriminator(lambda value: f"block:{field_of(value, 'type')}")


def only(*types: str, others: str = "") -> BeforeValidator:
    """Looks at content before pydantic does, so that the error says which kind of block can't be had.

    `others` is a pattern of further types, which the error doesn't name.
    """
    further = re.compile(others).fullmatch if others else None

    def look(value: object) -> object:
        for block in value if isinstance(value, list) else ():
            kind = block.get("type") if isinstance(block, dict) else None
            if kind not in types and not (further and isinstance(kind, str) and further(kind)):
                raise ValueError(f"it must be a text or a list of {_named(types)}; {_found(kind)}.")
        return value

    return BeforeValidator(look)


def joined(content: str | Sequence[object]) -> str:
    """Content that is text only, as one text."""
    return content if isinstance(content, str) else "".join(str(field_of(part, "text")) for part in content)


def _named(types: Sequence[str]) -> str:
    return f"blocks of type {' or '.join(types)}"


def _found(kind: object) -> str:
    if kind in MEDIA:
        return f'it holds one of type "{kind}", and this model reads text only'
    return f'it holds one of type "{kind[:40]}"' if isinstance(kind, str) else "it holds something else"

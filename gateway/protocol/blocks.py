"""Content as other APIs than the chat route have it: a text, or a list of blocks that each say their `type`."""

from collections.abc import Sequence

from pydantic import BeforeValidator, Discriminator, Field, Tag

from gateway.protocol.body import field_of
from gateway.protocol.messages import MESSAGES_MAX

# The two forms of content, for a union with the discriminator TEXT_OR_LIST. Only the form that was sent is looked at.
TEXT = Tag("is:text")
LIST = (Field(fail_fast=True, min_length=1, max_length=MESSAGES_MAX), Tag("is:list"))
MAYBE_EMPTY = (Field(fail_fast=True, max_length=MESSAGES_MAX), Tag("is:list"))
TEXT_OR_LIST = Discriminator(lambda value: "is:text" if isinstance(value, str) else "is:list")


# For a union of blocks whose tags are `block:` and the type.
BY_TYPE = Discriminator(lambda value: f"block:{field_of(value, 'type')}")


def only(*types: str) -> BeforeValidator:
    """Looks at content before pydantic does, so that the error says which kind of block can't be had."""

    def look(value: object) -> object:
        for block in value if isinstance(value, list) else ():
            kind = block.get("type") if isinstance(block, dict) else None
            if kind not in types:
                raise ValueError(f"it must be a text or a list of {_named(types)}; it holds {_found(kind)}.")
        return value

    return BeforeValidator(look)


def joined(content: str | Sequence[object]) -> str:
    """Content that is text only, as one text."""
    return content if isinstance(content, str) else "".join(str(field_of(part, "text")) for part in content)


def _named(types: Sequence[str]) -> str:
    return f"blocks of type {' or '.join(types)}"


def _found(kind: object) -> str:
    return f'one of type "{kind[:40]}"' if isinstance(kind, str) else "something else"

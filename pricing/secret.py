"""The secret of a key: how it looks, how it is checked without a database, and how it is stored.

    fb- + 32 random base62 characters (190 bits) + 6 base62 characters of checksum

The checksum is the CRC32 of everything before it, as in GitHub's tokens
(https://github.blog/2021-04-05-behind-githubs-new-authentication-token-formats/): it lets a gateway refuse a mistyped
or made-up key without asking the database, and a scanner know a real one. It adds no security and is no secret.

Only the SHA-256 of a secret is stored. Nothing slower is needed for 190 random bits; whoever registers a secret of
their own must bring as much randomness.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib
from typing import Final

from storage.errors import InvalidSetting

_START: Final = "fb-"
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM: Final = 32
_CHECKSUM: Final = 6
_PREFIX: Final = len(_START) + 8
_PREFIX_OF_REGISTERED: Final = 4
SECRET_LENGTH_MIN: Final = 24
SECRET_LENGTH_MAX: Final = 512


def new_secret() -> str:
    """A fresh secret from the system's source of randomness."""
    start = _START + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return start + _checksum(start)


def is_well_formed(secret: str) -> bool:
    """Whether this could be a secret that we made: right length, alphabet and checksum."""
    return (
        len(secret) == len(_START) + _RANDOM + _CHECKSUM
        and secret.startswith(_START)
        and secret.isascii()
        and secret[len(_START) :].isalnum()
        and _checksum(secret[:-_CHECKSUM]) == secret[-_CHECKSUM:]
    )


def hash_secret(secret: str) -> bytes:
    """What is stored and looked up: 32 bytes of SHA-256."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def prefix_of(secret: str) -> str:
    """The part that may be shown: 8 random characters of ours (142 bits stay hidden), 4 of a registered one."""
    return secret[:_PREFIX] if is_well_formed(secret) else secret[:_PREFIX_OF_REGISTERED]


def check_registered(secret: str) -> None:
    """Raise InvalidSetting, without repeating it, unless this string can be registered as a secret."""
    if not SECRET_LENGTH_MIN <= len(secret) <= SECRET_LENGTH_MAX:
        raise InvalidSetting(
            f"A key of your own needs {SECRET_LENGTH_MIN} to {SECRET_LENGTH_MAX} characters; "
            f"this one has {len(secret)}."
        )
    if not all("!" <= character <= "~" for character in secret):
        raise InvalidSetting("A key of your own may hold visible ASCII characters only: it travels in a header.")


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode("ascii"))
    digits = ""
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits

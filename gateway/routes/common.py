"""What the generating routes share."""

import secrets


def new_id(kind: str, mark: str = "-") -> str:
    """The id of an answer, which is also the request's name in the ledger: `chatcmpl-` and 128 random bits."""
    return f"{kind}{mark}{secrets.token_hex(16)}"

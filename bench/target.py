"""Where a load goes."""

from typing import Protocol

PATH = "/v1/chat/completions"


class Target(Protocol):
    """An OpenAI server."""

    url: str
    key: str

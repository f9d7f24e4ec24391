"""A front end's place at an engine that other processes serve from too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Seat:
    """What one front-end process needs to talk to an engine that its parent started. It can be sent to that process
    when it is spawned, and only then: there are sockets in it.

    `addresses` is vLLM's `client_addresses`; `index` counts the `count` front ends from 0.
    """

    index: int
    count: int
    addresses: Mapping[str, Any]

"""How much an engine has to do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """`requests` are those of all front ends, running and waiting; `seats` is how many the engine runs at once;
    `waiting` those that waited after its last step; `cache_used` is the share of its KV cache that is in use."""

    requests: int
    seats: int
    waiting: int = 0
    cache_used: float = 0.0

"""What a model does, and what its files say of it."""

from dataclasses import dataclass
from typing import Literal

ModelTask = Literal["generate", "embed", "score"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a card would say. `chats` is whether it has a chat template; the parsers are vLLM's that fit its family."""

    task: ModelTask
    context_length: int
    chats: bool = False
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None

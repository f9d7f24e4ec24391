"""The variables of a chat template that a request may set: `chat_template_kwargs`."""

import inspect
from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from engine.base import JSONValue
from engine.errors import PromptError

# What vLLM and transformers pass to a template, or to each other on the way, themselves.
_RESERVED = frozenset({"messages", "conversations", "model_config", "tokenizer"}).union(
    inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
) - {"tools", "documents", "add_generation_prompt", "continue_final_message"}


def check_variables(given: Mapping[str, JSONValue]) -> None:
    """Raises PromptError."""
    if "chat_template" in given:
        raise PromptError("A request can't bring its own chat template.", "chat_template_kwargs")
    taken = next((name for name in given if name in _RESERVED), None)
    if taken is not None:
        raise PromptError(
            f"`chat_template_kwargs.{taken}` can't be set: this gateway sets it itself. Leave it out.",
            "chat_template_kwargs",
        )

"""Formats of other APIs, converted with vLLM's own code: `Conversation` in, what their clients expect out.

vLLM is imported when a format is first asked for: an embedded engine has it by then; beside a scripted one this takes
seconds, so it happens in a thread.
"""

import asyncio
import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from engine import environment
from engine.errors import NotInstalled

if TYPE_CHECKING:
    from engine.messages_format import MessagesFormat


# What is in `sys.modules` may be half filled: another thread may still be importing it.
_loaded: dict[str, Any] = {}


async def messages_format() -> "MessagesFormat":
    """Anthropic's Messages API. Raises NotInstalled."""
    return (await _module("engine.messages_format")).MessagesFormat()


async def _module(name: str) -> Any:
    if (module := _loaded.get(name)) is not None:
        return module
    if importlib.util.find_spec("vllm") is None:
        raise NotInstalled("This route needs vLLM, which isn't installed beside this gateway.")
    if "vllm" not in sys.modules:
        environment.prepare(local=True)
    module = _loaded[name] = await asyncio.to_thread(importlib.import_module, name)
    return module

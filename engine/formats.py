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
    from engine.responses_format import ResponsesFormat


async def responses_format() -> "ResponsesFormat":
    """OpenAI's Responses API. Raises NotInstalled."""
    return (await _module("engine.responses_format")).ResponsesFormat()


async def _module(name: str) -> Any:
    if (module := sys.modules.get(name)) is not None and not _loading(module):
        return module
    if importlib.util.find_spec("vllm") is None:
        raise NotInstalled("This route needs vLLM, which isn't installed beside this gateway.")
    if "vllm" not in sys.modules:
        environment.prepare(local=True)
    return await asyncio.to_thread(importlib.import_module, name)


def _loading(module: object) -> bool:
    """Whether another thread is still importing it: then it is in `sys.modules`, half filled."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))

"""The LoRA adapters of a loaded engine, and how many and how large ones an engine takes."""

import asyncio
from collections.abc import Iterable, MutableMapping

from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

from engine.adapters import Adapter, adapter_files
from engine.base import JSONValue
from engine.errors import AdapterError, GenerationFailed
from engine.failures import translate
from engine.vllm_internals.core import Core

# What vLLM has kernels for.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
DEFAULT_RANK = 16
SLOTS_MAX = 8
# vLLM keeps as many in the machine's memory, and would read one that it dropped again in the middle of a step, where a
# missing file ends the engine. So there is room for all.
HELD = 512


def set_options(options: MutableMapping[str, JSONValue], adapters: Iterable[Adapter]) -> None:
    """Room for these adapters, where the card doesn't say how much: vLLM reserves a slot of the largest rank for each
    that may be in one step. Blocks while it looks at the adapters; raises AdapterError."""
    ranks = [adapter_files(adapter.name, adapter.source).rank for adapter in adapters]
    if ranks:
        options.setdefault("enable_lora", True)
    if options.get("enable_lora") is not True:
        return
    options.setdefault("max_lora_rank", _room(max([DEFAULT_RANK, *ranks])))
    slots = options.setdefault("max_loras", max(1, min(len(ranks), SLOTS_MAX)))
    options.setdefault("max_cpu_loras", max(HELD, slots if isinstance(slots, int) else 0))


class LoadedAdapters:
    """Those that requests may name."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._requests: dict[int, LoRARequest] = {}

    def request(self, adapter: Adapter | None) -> LoRARequest | None:
        """What vLLM calls it. Raises GenerationFailed where it was removed since the request came."""
        if adapter is None:
            return None
        found = self._requests.get(adapter.number)
        if found is None:
            raise GenerationFailed("The adapter was removed.")
        return found

    async def load(self, adapter: Adapter) -> None:
        """Running requests wait for a moment, while the engine reads the weights. Raises AdapterError, EngineDead."""
        name, config = adapter.name, self._core.vllm_config.lora_config
        if config is None:
            raise AdapterError(
                f'The adapter "{name}" needs an engine that takes adapters. Put `engine = {{ enable_lora = true }}` on '
                "its base's card, and restart."
            )
        files = await asyncio.to_thread(adapter_files, name, adapter.source)
        if files.rank > config.max_lora_rank:
            raise AdapterError(
                f'The adapter "{name}" has rank {files.rank}; its base takes up to {config.max_lora_rank}. Put '
                f"`engine = {{ enable_lora = true, max_lora_rank = {_room(files.rank)} }}` on its base's card, and "
                "restart."
            )
        request = LoRARequest(name, adapter.number, files.path)
        try:
            await self._core.add_lora(request)
        except EngineDeadError as error:
            raise translate(error) from error
        except Exception as error:
            raise AdapterError(f'The adapter "{name}" doesn\'t fit its base: {_first_line(error)}') from error
        self._requests[adapter.number] = request

    async def unload(self, adapter: Adapter) -> None:
        """Where other processes have the same engine, one of theirs may use it yet: the engine then drops it by itself,
        once it needs the room."""
        if self._requests.pop(adapter.number, None) is not None and self._core.alone:
            await self._core.remove_lora(adapter.number)


def _room(rank: int) -> int:
    return next((known for known in RANKS if known >= rank), rank)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]

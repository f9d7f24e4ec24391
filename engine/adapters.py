"""LoRA adapters: what they are to an engine, and what their folders must hold, which is checked before it sees them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.errors import AdapterError
from engine.sources import is_hub_id

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter for an engine's weights, in a folder or of the hub.

    `number` is this adapter's alone for as long as an engine lives: one that was changed gets another, so that it never
    meets what the engine keeps of the old one.
    """

    number: int
    name: str
    source: str


class TakesAdapters(Protocol):
    """What every engine does with them."""

    async def load_adapter(self, adapter: Adapter) -> None:
        """Requests may name it from then on. Raises AdapterError, or EngineDead; running requests go on either way."""

    async def unload_adapter(self, adapter: Adapter) -> None:
        """No request names it any more. Raises EngineDead."""


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter on this machine: its folder and its rank."""

    path: str
    rank: int


def adapter_files(name: str, source: str) -> AdapterFiles:
    """The adapter in a folder, or of a repository of the Hugging Face hub, which is downloaded: blocks.

    Raises AdapterError with one sentence for the operator.
    """
    folder = Path(source).expanduser()
    if not folder.exists() and is_hub_id(source):
        folder = _downloaded(name, source)
    if not folder.is_dir():
        raise AdapterError(f'The adapter "{name}": {source!r} is no folder on this machine, and no id of the hub.')
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise AdapterError(
                f'The adapter "{name}": {source!r} has no {file}; give a folder as `save_pretrained` of PEFT writes it.'
            )
    return AdapterFiles(str(folder.absolute()), _rank(name, folder / CONFIG))


def _downloaded(name: str, hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # of the network, of the hub, of the disk
        raise AdapterError(
            f'The adapter "{name}" can\'t be downloaded from {hub_id!r} ({type(error).__name__}); check the id, or '
            "give a folder."
        ) from error


def _rank(name: str, config: Path) -> int:
    try:
        fields = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f'The adapter "{name}": {CONFIG} can\'t be read: {error}.') from None
    kind, rank = (fields.get("peft_type"), fields.get("r")) if isinstance(fields, dict) else (None, None)
    if kind != "LORA":
        raise AdapterError(f'The adapter "{name}": peft_type is {kind!r} in {CONFIG}; only "LORA" can be served.')
    if not isinstance(rank, int) or rank < 1:
        raise AdapterError(f'The adapter "{name}": r is {rank!r} in {CONFIG}; it must be the rank, from 1.')
    return rank

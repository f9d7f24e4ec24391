"""Where weights come from: a folder on this machine or a repository of the Hugging Face hub."""

import re
from pathlib import Path

from engine.errors import EngineStartError

_HUB_ID = re.compile(r"[\w][\w.\-]*(/[\w][\w.\-]*)?")
_REMOTE = re.compile(r"(s3|gs|az)://")


def is_hub_id(source: str) -> bool:
    """Whether it could be one by its form."""
    return _HUB_ID.fullmatch(source) is not None


def is_folder(source: str) -> bool:
    """Whether `source` is a folder; raises EngineStartError if it looks like one and can't be served.

    A name like `org/model` that is no folder here is a hub id.
    """
    path = Path(source).expanduser()
    if not path.exists():
        if is_hub_id(source) or _REMOTE.match(source):
            return False
        raise EngineStartError(
            f"The weights folder {source!r} doesn't exist; give a folder with config.json and weights, or the id of a "
            "Hugging Face model (organisation/name)."
        )
    if not path.is_dir():
        raise EngineStartError(f"{source!r} is a file; give the folder that holds config.json and the weights.")
    if not (path / "config.json").is_file():
        raise EngineStartError(
            f"The weights folder {source!r} has no config.json; give the folder of a model in Hugging Face's format."
        )
    return True

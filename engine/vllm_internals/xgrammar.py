"""xgrammar's native module, without the rest of it.

`xgrammar` imports torch and transformers for parts that aren't used here. They would make a process ten times as large
and its start seconds long.
"""

import importlib
import importlib.util
import sys
import types
from typing import Any


def native_xgrammar() -> Any:
    """For a process that uses neither xgrammar itself nor torch: this makes both unusable. Raises ImportError."""
    found = importlib.util.find_spec("xgrammar")
    if found is None or found.submodule_search_locations is None:
        raise ImportError("xgrammar is not installed")
    package = types.ModuleType("xgrammar")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["xgrammar"] = package
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # "it can't be imported", as the import system says it
    importlib.import_module("xgrammar.load_binding")
    return importlib.import_module("xgrammar.base")._core

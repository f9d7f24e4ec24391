"""The engine for a spec: vLLM in this process, or a script."""

import importlib.util

from engine.base import Engine, EngineSpec, EngineStartError
from engine.script import load_script
from engine.scripted import ScriptedEngine

SCRIPTED = "scripted:"


def create_engine(spec: EngineSpec) -> Engine:
    """Not started yet. Raises EngineStartError when vLLM isn't installed or a script can't be read.

    A source `scripted:PATH` or `scripted:{json}` is played by a ScriptedEngine; anything else is weights for vLLM.
    """
    if spec.source.startswith(SCRIPTED):
        return ScriptedEngine(load_script(spec.source.removeprefix(SCRIPTED)), spec)
    if importlib.util.find_spec("vllm") is None:
        raise EngineStartError(
            "vLLM isn't installed; run `make install`, or `pip install 'farebox[cuda]'` on a machine with a GPU and "
            "`pip install 'farebox[cpu]'` on one without."
        )
    from engine.embedded import EmbeddedEngine

    return EmbeddedEngine(spec)

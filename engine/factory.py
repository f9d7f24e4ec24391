"""The engine for a spec: vLLM in this process, vLLM for several processes, or a script."""

import importlib.util

from engine.base import Engine, EngineSpec
from engine.errors import EngineStartError
from engine.facts import ModelFacts
from engine.script import load_script
from engine.scripted import ScriptedEngine
from engine.seat import Seat
from engine.shared import SharedEngine
from engine.starting import prepare

SCRIPTED = "scripted:"


def create_engine(spec: EngineSpec, seat: Seat | None = None) -> Engine:
    """Not started yet. Raises EngineStartError when vLLM isn't installed or a script can't be read.

    With a seat it will use the processes of a `SharedEngine`, else its own. A source `scripted:PATH` or
    `scripted:{json}` is played by a ScriptedEngine; anything else is weights for vLLM.
    """
    if spec.source.startswith(SCRIPTED):
        return ScriptedEngine(load_script(spec.source.removeprefix(SCRIPTED)), spec)
    _require_vllm()
    from engine.embedded import EmbeddedEngine

    return EmbeddedEngine(spec, seat)


def share_engine(spec: EngineSpec, front_ends: int) -> SharedEngine | None:
    """The engine of several processes; None for a script, which each of them plays for itself.

    Raises EngineStartError when vLLM isn't installed.
    """
    if spec.source.startswith(SCRIPTED):
        return None
    _require_vllm()
    return SharedEngine(spec, front_ends)


def model_facts(spec: EngineSpec) -> ModelFacts:
    """What the weights' own files say; takes as long as importing vLLM. Raises EngineStartError."""
    if spec.source.startswith(SCRIPTED):
        raise EngineStartError("A script says nothing of itself; serve it with a model card, and FAREBOX_SOURCE.")
    _require_vllm()
    prepare(spec)
    from engine.model_facts import facts_of

    return facts_of(spec)


def _require_vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        raise EngineStartError(
            "vLLM isn't installed; `pip install 'farebox[cuda]'` on a machine with a GPU, or "
            "`pip install 'farebox[cpu]'` on one without."
        )

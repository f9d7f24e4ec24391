"""What vLLM's own server would choose, Farebox chooses: the defaults that depend on who starts the engine."""

import ast
import re
from pathlib import Path
from types import FunctionType, SimpleNamespace

import pytest
import vllm
from vllm.engine import arg_utils
from vllm.engine.arg_utils import EngineArgs

from engine import args, environment
from engine.base import EngineSpec
from engine.sizing import GPU_BYTES, batch
from engine.vllm_internals.core import USAGE_CONTEXT

VLLM = Path(vllm.__file__).parent


def defaults_on(gpu: str) -> tuple[int | None, int | None]:
    """vLLM's own function with this GPU for its platform: batched tokens and sequences in the context that we use."""
    platform = SimpleNamespace(
        get_device_total_memory=lambda: GPU_BYTES[gpu],
        get_device_name=lambda: f"NVIDIA {gpu}",
        is_cpu=lambda: False,
        is_tpu=lambda: False,
    )
    theirs = EngineArgs.get_batch_defaults.__func__  # type: ignore[attr-defined]  # a class method's
    asked = FunctionType(theirs.__code__, vars(arg_utils) | {"current_platform": platform})
    tokens, sequences = asked(EngineArgs, 1)
    return tokens.get(USAGE_CONTEXT), sequences.get(USAGE_CONTEXT)


def test_an_h100_gets_what_vllms_server_gives_it() -> None:
    assert defaults_on("H100") == (8192, 1024)


@pytest.mark.parametrize("gpu", GPU_BYTES)
def test_catalog_check_shows_what_vllm_will_choose(gpu: str) -> None:
    found = batch(EngineSpec("x"), gpu)
    assert (found.tokens, found.sequences) == defaults_on(gpu)


def test_the_cards_own_numbers_are_shown_where_it_has_them() -> None:
    assert batch(EngineSpec("x", options={"max_num_batched_tokens": 512}), "H100").sequences == 512
    found = batch(EngineSpec("x", options={"max_num_seqs": 7, "max_num_batched_tokens": 99}), "H100")
    assert (found.tokens, found.sequences) == (99, 7)
    assert batch(EngineSpec("x", context_length=100, options={"max_num_seqs": 7}), "H100").tokens == 700
    assert batch(EngineSpec("x", options={"performance_mode": "throughput"}), "H100").tokens == 16_384


def test_the_context_is_that_of_vllms_own_server() -> None:
    entry = (VLLM / "entrypoints" / "launchers" / "api_server" / "entry.py").read_text()
    assert set(re.findall(r"UsageContext = UsageContext\.(\w+)", entry)) == {USAGE_CONTEXT.name}


def test_nothing_else_in_vllm_depends_on_the_context() -> None:
    """Where vLLM grows another default of this kind, somebody must look at it."""
    deciding = set()
    for path in (VLLM / "engine" / "arg_utils.py", *sorted((VLLM / "config").glob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and re.search(r"\busage_context\b|UsageContext\.", ast.unparse(node)):
                deciding.add(node.name)
    assert deciding == {
        "create_engine_config",  # passes it on
        "get_batch_defaults",
        "_set_default_max_num_seqs_and_batched_tokens_args",
    }


def test_no_variable_that_we_set_changes_a_default_of_the_engine() -> None:
    """The `VLLM_*` variables that vLLM's configuration reads, against those that Farebox sets for itself."""
    sources = [VLLM / "engine" / "arg_utils.py", *sorted((VLLM / "config").glob("*.py"))]
    read = {name for path in sources for name in re.findall(r"\benvs\.(VLLM_\w+)", path.read_text())}
    assert "VLLM_USE_V2_MODEL_RUNNER" in read
    ours = "".join(Path(str(module.__file__)).read_text() for module in (environment, args))
    set_by_us = set(re.findall(r'(?:_set\(|setdefault\()"(VLLM_\w+)"', ours))
    assert {"VLLM_WORKER_MULTIPROC_METHOD", "VLLM_LOGGING_LEVEL"} <= set_by_us
    assert read & set_by_us == {"VLLM_LOGGING_LEVEL"}  # how much vLLM says at its start

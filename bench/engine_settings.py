"""The engine that every subject runs: the demo model with the same settings, in the spelling of each.

With BENCH_SMALL=1 it is of one layer with one head, of random numbers: prompts of 100,000 tokens then take the engine
seconds, not minutes, and a front end the same as ever.
"""

import json
import os
from pathlib import Path

MODEL = Path(__file__).resolve().parent.parent / "engine" / "demo" / "model"
MODEL_NAME = "farebox/demo"
CONTEXT_LENGTH = 131072
TOOL_CALL_PARSER = "llama3_json"

# Fields of vLLM's AsyncEngineArgs. Compiling takes minutes on a CPU; the rest is what the servers would choose
# themselves, written down so that all choose the same.
OPTIONS: dict[str, object] = {
    "enforce_eager": True,
    "kv_cache_memory_bytes": 1 << 30,
    "max_num_seqs": 256,
    "max_num_batched_tokens": 4096,
}
if os.environ.get("BENCH_SMALL") == "1":
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    OPTIONS |= {"load_format": "dummy", "hf_overrides": {"num_hidden_layers": 1, **heads}}


# What Farebox does by itself (`engine.vllm_internals.lifeline`, `engine.args`): the worker in the engine's process, and
# a core left free. vLLM's own choice, a process that spins, makes figures on few cores a matter of luck for all.
EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
THREADS = max(1, len(os.sched_getaffinity(0)) - 1)


def flags() -> list[str]:
    """For vLLM's command line."""
    options = []
    for option, value in OPTIONS.items():
        flag = "--" + option.replace("_", "-")
        options += [flag] if value is True else [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return [
        *("--model", str(MODEL), "--served-model-name", MODEL_NAME, "--max-model-len", str(CONTEXT_LENGTH)),
        *("--distributed-executor-backend", EXECUTOR),
        *("--enable-auto-tool-choice", "--tool-call-parser", TOOL_CALL_PARSER, "--host", "127.0.0.1"),
        *options,
    ]


def environment() -> dict[str, str]:
    """Without the developer's own settings of Farebox; offline, and telling nobody."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FAREBOX_")}
    return inherited | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(THREADS),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }

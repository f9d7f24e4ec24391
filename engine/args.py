"""An `EngineSpec` as vLLM's `AsyncEngineArgs`: defaults for serving, and checks before any weight is read."""

import difflib
import os
import typing
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path

import torch
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.transformers_utils.config import get_config

from engine.base import EngineSpec, JSONValue
from engine.errors import EngineStartError
from engine.loaded_adapters import set_options
from engine.temperature import NAME as HIGH_TEMPERATURE
from engine.vllm_internals.core import Statistics

# Card fields that say the same as one of vLLM's options: two places for one fact would have to agree.
_FIELDS = {
    "model": "source",
    "dtype": "precision",
    "quantization": "precision",
    "max_model_len": "context_length",
}

# vLLM sizes the KV cache from `gpu_memory_utilization`, on a CPU too: it would take nine tenths of the machine's memory
# away from whatever else runs there.
CPU_KV_CACHE_BYTES = 1 << 30

# Threads that make prompts: one for the longest (`engine.vllm_internals.renderer`), one for those that shall not
# wait for them.
RENDERERS = 2

# vLLM's name for online FP8 with one scale per tensor; plain "fp8" is deprecated for it in 0.32.
_ONLINE_FP8 = "fp8_per_tensor"
# The first is the default: vLLM's grammars for tool calls are made for it alone.
BACKENDS = ("xgrammar", "guidance")
_DTYPES = {"fp8": "auto", "fp16": "float16", "bf16": "bfloat16", "auto": "auto"}


def engine_args(spec: EngineSpec, log_config_path: str | None) -> AsyncEngineArgs:
    """Raises EngineStartError with one sentence for the operator."""
    _check_options(spec.options)
    options = dict(spec.options)
    options.pop("disable_log_stats", None)
    if spec.task != "generate":
        options.setdefault("runner", "pooling")
    if current_platform.is_cpu():
        if torch.cpu.get_capabilities().get("amx_tile"):
            options.setdefault("worker_cls", "engine.vllm_internals.cpu_worker.AMXWorker")
        # The engine's threads wait for each other by spinning; one core stays for whoever else has work.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) - 1)))
        # Compiling takes minutes on a CPU and gains little for the models that one serves.
        options.setdefault("enforce_eager", True)
        if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            options.setdefault("kv_cache_memory_bytes", CPU_KV_CACHE_BYTES)
    if "speculative_config" not in options and options.get("runner") != "pooling":  # vLLM takes none with these
        options["logits_processors"] = [*_list(options.get("logits_processors")), HIGH_TEMPERATURE]
    if options.get("runner") != "pooling":  # there vLLM may share a cache between them that isn't made for it
        options.setdefault("renderer_num_workers", RENDERERS)
    options.setdefault("scheduling_policy", "priority")  # by the number that comes with each request
    options["structured_outputs_config"] = _structured_outputs(options.get("structured_outputs_config"))
    set_options(options, spec.adapters)
    if log_config_path is not None:
        options.setdefault("log_config_file", log_config_path)
    _check_devices(options)
    arguments: dict[str, typing.Any] = {
        **options,
        "model": spec.source,
        "dtype": _DTYPES[spec.precision],
        "quantization": _quantization(spec),
        "max_model_len": -1 if spec.fit_context else spec.context_length,  # -1: as much as the memory holds
    }
    return AsyncEngineArgs(**arguments)


def _structured_outputs(config: JSONValue) -> dict[str, JSONValue]:
    """One backend for all requests. With vLLM's `auto` the first request decides for those that come after it."""
    chosen = dict(config) if isinstance(config, Mapping) else {}
    backend = chosen.setdefault("backend", BACKENDS[0])
    if backend not in BACKENDS:
        raise EngineStartError(
            f"structured_outputs_config: backend can't be {backend!r}; it is one of {', '.join(BACKENDS)}, of which "
            "requests can be checked before the engine takes them."
        )
    return chosen


def _list(value: JSONValue) -> list[JSONValue]:
    return list(value) if isinstance(value, list | tuple) else []


def statistics(spec: EngineSpec) -> Statistics:
    """vLLM's `disable_log_stats`: true for none, false for all of them, absent for those that are cheap."""
    disabled = spec.options.get("disable_log_stats")
    if disabled is None:
        return Statistics.SERVING
    return Statistics.NONE if disabled else Statistics.FULL


def _check_options(options: Mapping[str, JSONValue]) -> None:
    known = [field.name for field in fields(AsyncEngineArgs)]
    for name, value in options.items():
        if name in _FIELDS:
            raise EngineStartError(
                f"The engine option {name!r} is set by the card's field {_FIELDS[name]!r}; remove the option."
            )
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else "see vLLM's engine arguments."
            raise EngineStartError(f"{name!r} is not an option of vLLM's engine: {hint}")
        _check_type(name, value)


def _check_type(name: str, value: JSONValue) -> None:
    adapter = _adapter(name)
    if adapter is None or isinstance(value, Mapping):
        return  # vLLM makes its config objects from tables, and checks them then
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise EngineStartError(
            f"The engine option {name!r} can't be {value!r} ({type(value).__name__}): {reason[0].lower()}{reason[1:]}."
        ) from error


@cache
def _adapter(name: str) -> "TypeAdapter[typing.Any] | None":
    """What pydantic makes of the field's type; None for the few that it can't check (vLLM will)."""
    hint = next(field.type for field in fields(AsyncEngineArgs) if field.name == name)
    try:
        return TypeAdapter(typing.cast(typing.Any, hint), config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a dataclass of vLLM's with a config of its own, or a name that vLLM doesn't export
        return None


def _check_devices(options: Mapping[str, JSONValue]) -> None:
    size = 1
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        value = options.get(name, 1)
        size *= value if isinstance(value, int) else 1
    if size <= 1:
        return
    if current_platform.is_cpu():
        nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1
        have, kind = nodes, "NUMA node" if nodes == 1 else "NUMA nodes"
    else:
        have = current_platform.device_count()
        kind = "GPU" if have == 1 else "GPUs"
    if size > have and "nnodes" not in options and "distributed_executor_backend" not in options:
        raise EngineStartError(
            f"tensor_parallel_size x pipeline_parallel_size is {size}, but this machine has {have} {kind}; "
            f"set them so that their product is at most {have}."
        )


def _quantization(spec: EngineSpec) -> str | None:
    """Online FP8 when the card asks for it and the weights aren't FP8 already."""
    if spec.precision != "fp8":
        return None
    if not current_platform.supports_fp8():
        raise EngineStartError(
            f"precision = 'fp8' can't run on this machine ({_device()}); serve {spec.source!r} with --precision auto "
            "or bf16, or use a GPU with FP8 (Ada, Hopper or newer)."
        )
    return None if _quantized(spec) else _ONLINE_FP8


def _device() -> str:
    if current_platform.is_cpu():
        return "it has no GPU that vLLM can use"
    return f"its device is {current_platform.get_device_name()}"


def _quantized(spec: EngineSpec) -> bool:
    trust = spec.options.get("trust_remote_code") is True
    revision = spec.options.get("revision")
    config = get_config(spec.source, trust_remote_code=trust, revision=revision if isinstance(revision, str) else None)
    return getattr(config, "quantization_config", None) is not None

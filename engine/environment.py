"""What vLLM reads from the environment, set before it is imported, and only where the operator has set nothing."""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

from engine import log_lines

# vLLM's start-up at INFO is some eighty lines. These loggers say what an operator waits for: weights and memory.
_PROGRESS = (
    "vllm.model_executor.model_loader",
    "vllm.v1.core.kv_cache_utils",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.v1.worker.cpu_model_runner",
    "vllm.v1.worker.gpu_worker",
    "vllm.compilation.backends",
)

# Warnings that every start without a GPU or without compilation gives: nothing in them is for the operator to mend.
_KNOWN = ("vllm.config.vllm", "vllm.platforms.cpu", "vllm.triton_utils", "vllm.v1.worker.cpu_worker")

_LOGGING = {"VLLM_LOGGING_LEVEL", "VLLM_LOGGING_CONFIG_PATH", "VLLM_CONFIGURE_LOGGING"}

# The variables that this module has set: what else is there is the operator's.
_ours: set[str] = set()


def prepare(local: bool) -> None:
    """Sets the defaults; `local` says that the weights are a folder, so that nothing needs the Hugging Face hub."""
    if not {"VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK", "DO_NOT_TRACK"} & os.environ.keys():
        _set("VLLM_NO_USAGE_STATS", "1")
    # A fork of a process that has threads and an event loop can inherit a lock that nobody will release.
    _set("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if not _operator_logs():
        # Until the file of `EngineLogs` is read, in this process and in each of vLLM's own.
        _set("VLLM_LOGGING_LEVEL", "WARNING")
    if local:
        _set("HF_HUB_OFFLINE", "1")
    elif "HF_HUB_OFFLINE" in _ours:
        # An engine with local weights came first; this one may have to fetch its own.
        _ours.discard("HF_HUB_OFFLINE")
        del os.environ["HF_HUB_OFFLINE"]
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:
        # It read the variable when it was imported.
        vars(hub)["HF_HUB_OFFLINE"] = os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE")


def trace_over_http() -> None:
    """vLLM sends its spans by gRPC unless it is told otherwise."""
    _set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")


def _set(name: str, value: str) -> None:
    if name not in os.environ:
        os.environ[name] = value
        _ours.add(name)


def _operator_logs() -> bool:
    """Whether the operator has configured vLLM's logging."""
    return bool((_LOGGING & os.environ.keys()) - _ours)


class EngineLogs:
    """How vLLM's processes log: progress and warnings to stderr, and failures also to a file that `cause` reads.

    When the operator has configured vLLM's logging, that holds, and there is no file.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="farebox-engine-")
        self._failures = Path(self._folder.name) / "failures.log"
        self.config_path: str | None = None
        if not _operator_logs():
            path = Path(self._folder.name) / "logging.json"
            path.write_text(json.dumps(_logging_config(str(self._failures), log_lines.in_use())))
            self.config_path = str(path)

    def cause(self) -> str | None:
        """The last line of the first traceback that one of vLLM's processes logged."""
        if not self._failures.exists():
            return None
        found = [line for line in self._failures.read_text(errors="replace").splitlines() if _ERROR.match(line)]
        return found[0].strip() if found else None

    def close(self) -> None:
        self._folder.cleanup()


# The last line of a traceback: `ValueError: text`, `torch.OutOfMemoryError: text`.
_ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)\b: .")


def _logging_config(failures: str, json_lines: bool) -> dict[str, object]:
    line = {"format": "%(asctime)s %(levelname)s vllm: %(message)s", "datefmt": "%H:%M:%S"}
    loggers: dict[str, object] = {name: {"level": "INFO"} for name in _PROGRESS}
    loggers |= {name: {"level": "ERROR"} for name in _KNOWN}
    loggers["vllm"] = {"handlers": ["console", "failures"], "level": "WARNING", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"()": "engine.log_lines.JSONLines"} if json_lines else line,
            "bare": {"format": "%(message)s"},
        },
        "handlers": {
            "console": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"},
            "failures": {
                "class": "logging.FileHandler",
                "formatter": "bare",
                "level": "ERROR",
                "filename": failures,
                "delay": True,
            },
        },
        "loggers": loggers,
    }

"""What vLLM reads from the environment, set before it is imported, and only where the operator has set nothing."""

import json
import logging
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

# What every start without a GPU, without compilation or from a local disk gives: nothing in it is for the operator.
_KNOWN = (
    "vllm.config.vllm",
    "vllm.platforms.cpu",
    "vllm.triton_utils",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.model_loader.weight_utils",
)

# With these an operator takes vLLM's logging over, whatever it then logs.
_TAKEN_OVER = {"VLLM_LOGGING_CONFIG_PATH", "VLLM_CONFIGURE_LOGGING"}

# The variables that this module has set: what else is there is the operator's.
_ours: set[str] = set()


def prepare(local: bool) -> None:
    """Sets the defaults; `local` says that the weights are a folder, so that nothing needs the Hugging Face hub."""
    if not {"VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK", "DO_NOT_TRACK"} & os.environ.keys():
        _set("VLLM_NO_USAGE_STATS", "1")
    # A fork of a process that has threads and an event loop can inherit a lock that nobody will release.
    _set("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if not logging_taken_over():
        # Until the file of `EngineLogs` is read, in this process and in each of vLLM's own.
        _set("VLLM_LOGGING_LEVEL", "WARNING")
        logging.getLogger("vllm").setLevel(_level())
        for name in _quiet():
            logging.getLogger(name).setLevel("ERROR")
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


def logging_taken_over() -> bool:
    """Whether the operator has configured vLLM's logging, which is then left alone."""
    return bool(_TAKEN_OVER & os.environ.keys())


def _level() -> str:
    """Of vLLM's loggers: the operator's, if set; with our own at debug, what vLLM would show by itself."""
    if "VLLM_LOGGING_LEVEL" not in _ours and "VLLM_LOGGING_LEVEL" in os.environ:
        return os.environ["VLLM_LOGGING_LEVEL"].upper()
    return "INFO" if logging.getLogger().isEnabledFor(logging.DEBUG) else "WARNING"


def _quiet() -> tuple[str, ...]:
    return _KNOWN if _level() == "WARNING" else ()


class EngineLogs:
    """How vLLM's processes log: progress and warnings to stderr, and failures also to a file that `cause` reads.

    When the operator has configured vLLM's logging, that holds, and there is no file.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="farebox-engine-")
        self._failures = Path(self._folder.name) / "failures.log"
        self._requests_come = Path(self._folder.name) / "requests"
        self.config_path: str | None = None
        if not logging_taken_over():
            path = Path(self._folder.name) / "logging.json"
            path.write_text(json.dumps(_logging_config(str(self._failures), str(self._requests_come))))
            self.config_path = str(path)

    def requests_come(self) -> None:
        """The engine is loaded: from now on its processes may meet what clients say."""
        self._requests_come.touch()

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


def _logging_config(failures: str, marker: str) -> dict[str, object]:
    loggers: dict[str, object] = {}
    if (level := _level()) == "WARNING":
        loggers = {name: {"level": "INFO"} for name in _PROGRESS}
    loggers |= {name: {"level": "ERROR"} for name in _quiet()}
    loggers["vllm"] = {"handlers": ["console", "failures"], "level": level, "propagate": False}
    ours = log_lines.outlet()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"bare": {"format": "%(message)s"}},
        "filters": {"before_requests": {"()": "engine.log_lines.BeforeRequests", "marker": marker}},
        "handlers": {
            "console": {
                "()": "engine.log_lines.Outlet",
                "form": ours.form if ours is not None else "text",
                "mark": ours.mark_below if ours is not None else "",
                "marker": marker,
            },
            "failures": {
                "class": "logging.FileHandler",
                "formatter": "bare",
                "filters": ["before_requests"],
                "level": "ERROR",
                "filename": failures,
                "delay": True,
            },
        },
        "loggers": loggers,
    }

"""What every start of vLLM needs: an environment, a thread that may be left behind, a sentence when it fails."""

import asyncio
import re
import threading
from collections.abc import Callable
from typing import TypeVar

from engine import environment
from engine.base import EngineSpec
from engine.errors import AdapterError, EngineStartError
from engine.sources import is_folder

Made = TypeVar("Made")

# vLLM asks its processes to end, and kills them after this long.
STOP_SECONDS = 10.0


def prepare(spec: EngineSpec) -> None:
    """Before vLLM is imported: what it reads from the environment."""
    environment.prepare(local=is_folder(spec.source))
    if str(spec.options.get("otlp_traces_endpoint")).endswith("/v1/traces"):
        environment.trace_over_http()


async def in_daemon_thread(make: Callable[[], Made], discard: Callable[[Made], None]) -> Made:
    """What `make` returns or raises; in a daemon thread, so that a process that is to stop while it loads can stop.

    `discard` gets what nobody waits for any more. Processes that `make` starts don't get the terminal's Ctrl-C.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Made] = loop.create_future()

    def settle(made: "list[Made]", error: Exception | None) -> None:
        if future.cancelled():
            for one in made:
                discard(one)
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(made[0])

    def work() -> None:
        made: list[Made] = []
        error: Exception | None = None
        try:
            from engine.vllm_internals.lifeline import sheltered_from_ctrl_c

            with sheltered_from_ctrl_c():
                made.append(make())
        except Exception as caught:
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, made, error)
        else:
            for one in made:
                discard(one)

    threading.Thread(target=work, name="engine-start", daemon=True).start()
    return await future


def reason(spec: EngineSpec, error: Exception, logs: environment.EngineLogs | None) -> str:
    """What stopped the engine from starting: the first cause in whichever process it was."""
    if isinstance(error, EngineStartError | AdapterError):
        return str(error)
    cause = (logs.cause() if logs is not None else None) or _last_line(error)
    if match := re.search(r"max_model_len.*?derived.*?=\s*(\d+)", f"{cause} {error}", re.DOTALL):
        return (
            f"context_length = {spec.context_length} is more than the {match[1]} tokens that "
            f"{spec.source!r} was made for; set it to {match[1]} or less, or leave it out."
        )
    return f"The engine for {spec.source!r} didn't start: {cause}"


def _last_line(error: Exception) -> str:
    """One line of an error's text: pydantic's are headings with the reason below."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith("Value error, ")]
    line = (reasons or lines or [type(error).__name__])[0]
    return re.sub(r"^Value error, | \[type=.*\]$", "", line)

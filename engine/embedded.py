"""vLLM's `AsyncLLM` in this process, behind `engine.base.Engine`: its life, from weights to shutdown."""

import asyncio
import logging
import re
import threading
from typing import TYPE_CHECKING

from engine import environment
from engine.base import (
    ChatFormat,
    EmbeddingRequest,
    EngineDead,
    EngineSpec,
    EngineStartError,
    EngineState,
    GenerationRequest,
)
from engine.sources import is_folder

if TYPE_CHECKING:
    from engine.embedding import EmbeddedEmbedding
    from engine.generation import EmbeddedGeneration
    from engine.loaded import LoadedEngine
    from engine.rendering import VLLMRenderer

_log = logging.getLogger(__name__)

# vLLM asks its processes to end, and kills them after this long.
STOP_SECONDS = 10.0


class EmbeddedEngine:
    """One AsyncLLM with its processes. vLLM is imported by `start`, not by this module."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._state = EngineState.STARTING
        self._loaded: LoadedEngine | None = None
        self._logs: environment.EngineLogs | None = None

    @property
    def spec(self) -> EngineSpec:
        return self._spec

    @property
    def state(self) -> EngineState:
        if self._state is EngineState.READY and self._loaded is not None and self._loaded.core.errored:
            self._state = EngineState.DEAD
        return self._state

    @property
    def context_length(self) -> int:
        return self._require().context_length

    async def start(self) -> None:
        """Loads the weights in a thread, so that the event loop goes on, and generates a token.

        vLLM allows this: what its AsyncLLM does in the event loop starts with the first request.
        """
        try:
            environment.prepare(local=is_folder(self._spec.source))
            if str(self._spec.options.get("otlp_traces_endpoint")).endswith("/v1/traces"):
                environment.trace_over_http()
            self._logs = environment.EngineLogs()
            self._loaded = await self._load(self._logs.config_path)
            await self._loaded.warm_up()
        except Exception as error:
            sentence = str(error) if isinstance(error, EngineStartError) else self._sentence(error)
            self._state = EngineState.DEAD
            await self._shut_down()
            raise EngineStartError(sentence) from error
        self._loaded.core.output_handler.add_done_callback(self._on_end)
        self._state = EngineState.READY

    async def _load(self, log_config_path: str | None) -> "LoadedEngine":
        """In a daemon thread, so that a process that is told to stop while it loads can stop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[LoadedEngine] = loop.create_future()

        def settle(loaded: "LoadedEngine | None", error: Exception | None) -> None:
            if future.cancelled():
                if loaded is not None:
                    loaded.shutdown(0)
            elif loaded is not None:
                future.set_result(loaded)
            elif error is not None:
                future.set_exception(error)

        def load() -> None:
            try:
                from engine.lifeline import sheltered_from_ctrl_c
                from engine.loaded import LoadedEngine

                with sheltered_from_ctrl_c():
                    loaded, error = LoadedEngine(self._spec, log_config_path), None
            except Exception as caught:
                loaded, error = None, caught
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, loaded, error)
            elif loaded is not None:
                loaded.shutdown(0)

        threading.Thread(target=load, name="engine-start", daemon=True).start()
        return await future

    def _on_end(self, _: "asyncio.Task[None]") -> None:
        """vLLM's output handler ends only when the engine has died or is being stopped."""
        if self._state is EngineState.READY:
            self._state = EngineState.DEAD
        if self._state is EngineState.DEAD:
            _log.error("The engine for %s has died; restart the server.", self._spec.source)

    def _sentence(self, error: Exception) -> str:
        """What stopped the engine from starting: the first cause in whichever process it was."""
        cause = (self._logs.cause() if self._logs is not None else None) or _last_line(error)
        if match := re.search(r"max_model_len.*?derived.*?=\s*(\d+)", f"{cause} {error}", re.DOTALL):
            return (
                f"context_length = {self._spec.context_length} is more than the {match[1]} tokens that "
                f"{self._spec.source!r} was made for; set it to {match[1]} or less, or leave it out."
            )
        return f"The engine for {self._spec.source!r} didn't start: {cause}"

    async def stop(self) -> None:
        if self._state is not EngineState.STOPPED:
            self._state = EngineState.STOPPED
            await self._shut_down()

    async def _shut_down(self) -> None:
        """Ends vLLM's processes within about STOP_SECONDS; running generations raise EngineDead."""
        if self._loaded is not None:
            self._loaded.fail_running(EngineDead("The engine has been stopped."))
            await asyncio.to_thread(self._loaded.shutdown, STOP_SECONDS)
            self._loaded.close()
        if self._logs is not None:
            self._logs.close()

    def renderer(self, chat_format: ChatFormat) -> "VLLMRenderer":
        return self._require().renderer(chat_format)

    async def generate(self, request: GenerationRequest) -> "EmbeddedGeneration":
        await self.check()
        return await self._require().generate(request)

    async def embed(self, request: EmbeddingRequest) -> "EmbeddedEmbedding":
        await self.check()
        return self._require().embed(request)

    async def check(self) -> None:
        if self.state is not EngineState.READY:
            raise EngineDead(f"The engine for {self._spec.source!r} is {self._state.value}.")

    def _require(self) -> "LoadedEngine":
        if self._loaded is None:
            raise EngineDead(f"The engine for {self._spec.source!r} hasn't started.")
        return self._loaded


def _last_line(error: Exception) -> str:
    """One line of an error's text: pydantic's are headings with the reason below."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith("Value error, ")]
    line = (reasons or lines or [type(error).__name__])[0]
    return re.sub(r"^Value error, | \[type=.*\]$", "", line)

"""vLLM's `AsyncLLM` in this process, behind `engine.base.Engine`: its life, from weights to shutdown."""

import asyncio
import logging
from typing import TYPE_CHECKING

from engine import environment
from engine.adapters import Adapter
from engine.base import ChatFormat, EmbeddingRequest, EngineSpec, EngineState, GenerationRequest
from engine.errors import EngineDead, EngineStartError
from engine.load import EngineLoad
from engine.seat import Seat
from engine.starting import STOP_SECONDS, in_daemon_thread, prepare, reason
from engine.tokens import Vocabulary

if TYPE_CHECKING:
    from engine.embedding import EmbeddedEmbedding
    from engine.generation import EmbeddedGeneration
    from engine.loaded import LoadedEngine
    from engine.rendering import VLLMRenderer

_log = logging.getLogger("farebox.engine")


class EmbeddedEngine:
    """One AsyncLLM, with its processes or with a seat at those of a `SharedEngine`.

    vLLM is imported by `start`, not by this module.
    """

    def __init__(self, spec: EngineSpec, seat: Seat | None = None) -> None:
        self._spec = spec
        self._seat = seat
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

    @property
    def vocabulary(self) -> Vocabulary:
        return self._require().vocabulary

    @property
    def lag_seconds(self) -> float:
        return 0.0 if self._loaded is None else self._loaded.core.lag_seconds

    @property
    def cache_tokens(self) -> int:
        """How many tokens the KV cache holds, as vLLM measured it at the start."""
        return self._require().cache_tokens

    @property
    def has_room(self) -> bool:
        return self._require().core.has_room

    @property
    def load(self) -> EngineLoad:
        return self._require().core.load

    async def start(self) -> None:
        """Loads the weights in a thread, so that the event loop goes on, and generates a token.

        vLLM allows this: what its AsyncLLM does in the event loop starts with the first request.
        """
        try:
            prepare(self._spec)
            self._logs = environment.EngineLogs()
            self._loaded = await self._load(self._logs.config_path)
            await self._loaded.warm_up()
            for adapter in self._spec.adapters:
                await self._loaded.adapters.load(adapter)
            self._logs.requests_come()
        except Exception as error:
            sentence = reason(self._spec, error, self._logs)
            self._state = EngineState.DEAD
            await self._shut_down()
            raise EngineStartError(sentence) from error
        handler = self._loaded.core.output_handler
        assert handler is not None  # it has passed on a token
        handler.add_done_callback(self._on_end)
        self._state = EngineState.READY
        _log.info("%s: %s", self._spec.source, self._loaded.capacity)

    async def _load(self, log_config_path: str | None) -> "LoadedEngine":
        def make() -> "LoadedEngine":
            from engine.loaded import LoadedEngine

            return LoadedEngine(self._spec, log_config_path, self._seat)

        return await in_daemon_thread(make, lambda loaded: loaded.shutdown(0))

    def died(self) -> None:
        """To be called by a front end whose parent has seen the engine die; running generations raise EngineDead."""
        if self._loaded is not None:
            self._loaded.died()

    def _on_end(self, _: "asyncio.Task[None]") -> None:
        """vLLM's output handler ends only when the engine has died or is being stopped."""
        if self._state is EngineState.READY:
            self._state = EngineState.DEAD
        if self._state is EngineState.DEAD:
            _log.error("The engine for %s has died; restart the server.", self._spec.source)

    async def stop(self) -> None:
        if self._state is not EngineState.STOPPED:
            self._state = EngineState.STOPPED
            await self._shut_down()

    async def _shut_down(self) -> None:
        """Ends vLLM's processes within about STOP_SECONDS; running generations raise EngineDead."""
        if self._loaded is not None:
            self._loaded.fail_running(EngineDead("The engine has been stopped."))
            await self._loaded.constraining.close()
            await asyncio.to_thread(self._loaded.shutdown, STOP_SECONDS)
            self._loaded.close()
        if self._logs is not None:
            self._logs.close()

    def renderer(self, chat_format: ChatFormat) -> "VLLMRenderer":
        return self._require().renderer(chat_format)

    async def load_adapter(self, adapter: Adapter) -> None:
        await self.check()
        await self._require().adapters.load(adapter)

    async def unload_adapter(self, adapter: Adapter) -> None:
        await self.check()
        await self._require().adapters.unload(adapter)

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

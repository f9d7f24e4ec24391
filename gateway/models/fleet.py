"""The engines of this process and which model runs on which."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.base import Engine, EngineSpec, EngineState, Renderer
from engine.log_lines import requests_come
from gateway.errors import NotFound, Unavailable
from gateway.models.catalog import Catalog
from gateway.models.life import Life
from gateway.models.model import Model
from gateway.models.token_json import TokenJSON
from pricing.keys import Key

log = logging.getLogger("farebox.fleet")


@dataclass(frozen=True, slots=True)
class Served:
    """A model on a running engine. `tokens` are the engine's, as answers write them."""

    model: Model
    engine: Engine
    renderer: Renderer
    tokens: TokenJSON

    @property
    def context_length(self) -> int:
        """In tokens: the card's, or the weights' where those are shorter."""
        return min(self.model.context_length, self.engine.context_length)

    def shares_with(self, key: Key) -> str | None:
        """With whom a request of this key shares what is remembered of prompts, as the card says; None: everybody."""
        match self.model.card.prefix_cache:
            case "account":
                return f"account {key.account_id}"
            case "key":
                return f"key {key.id}"
            case "shared":
                return None


class Fleet:
    """Starts one engine for each distinct engine spec and finds the one of a model."""

    def __init__(self, catalog: Catalog, create_engine: Callable[[EngineSpec], Engine]) -> None:
        self.catalog = catalog
        specs = catalog.engine_specs
        self._engines = [create_engine(spec) for spec in specs]
        self._engine_of = {model.name: self._engines[specs.index(model.engine)] for model in catalog}
        self._served: dict[str, Served] = {}

    @property
    def engines(self) -> list[Engine]:
        return list(self._engines)

    @property
    def states(self) -> Mapping[str, EngineState]:
        """By model name."""
        return {name: engine.state for name, engine in self._engine_of.items()}

    @property
    def lags(self) -> Mapping[str, float]:
        """By model name: how old its tokens are when they are passed on, in seconds."""
        return {name: engine.lag_seconds for name, engine in self._engine_of.items()}

    @property
    def ready(self) -> bool:
        """Whether every model has generated a token and its engine lives."""
        return all(engine.state is EngineState.READY for engine in self._engines) and all(
            name in self._served for name in self.catalog.names
        )

    def engine_of(self, name: str) -> Engine | None:
        """The engine of a model, whatever its state."""
        return self._engine_of.get(name)

    async def start(self) -> None:
        """Load one engine after another: they compete for the same memory. Raises EngineStartError."""
        for engine in self._engines:
            log.info("loading %s", engine.spec.source)
            await engine.start()
            requests_come()
            tokens = TokenJSON(engine.vocabulary)
            for model in self.catalog:
                if self._engine_of[model.name] is engine:
                    self._served[model.name] = Served(model, engine, _renderer(model, engine), tokens)
        for served in self._served.values():
            _tell(served)
        log.info("ready: %s", ", ".join(self.catalog.names))

    async def stop(self) -> None:
        await asyncio.gather(*(engine.stop() for engine in self._engines))

    async def add(self, model: Model) -> None:
        """Serve an adapter's model beside its base's, from now on. Raises AdapterError, EngineDead."""
        assert model.adapter is not None
        assert model.base is not None
        engine = self._engine_of[model.base]
        await engine.load_adapter(model.adapter)
        tokens = self._served[model.base].tokens
        self._served[model.name] = Served(model, engine, _renderer(model, engine), tokens)
        self._engine_of[model.name] = engine
        self.catalog.added[model.name] = model

    def remove(self, model: Model) -> None:
        """New requests don't find it any more; `unload` it when none runs."""
        if self.catalog.added.get(model.name) == model:
            del self.catalog.added[model.name], self._served[model.name], self._engine_of[model.name]

    async def unload(self, model: Model) -> None:
        """Raises EngineDead."""
        assert model.adapter is not None
        assert model.base is not None
        await self._engine_of[model.base].unload_adapter(model.adapter)

    def find(self, name: str, account_id: int) -> Served:
        """By its own name or another. Raises NotFound(model_not_found), also for another account's and after its time,
        or Unavailable while its engine is loading or dead."""
        model = self.catalog.get(name)
        if model is not None and model.card.over and model.visible_to(account_id):
            raise _over(name, model.card)
        served = self._served.get(name if model is None else model.root)
        if served is None or served.engine.state is not EngineState.READY or not served.model.visible_to(account_id):
            return self._refuse(name, account_id)
        return served

    def _refuse(self, name: str, account_id: int) -> Served:
        model = self.catalog.get(name)
        engine = self._engine_of.get(name if model is None else model.root)
        if engine is None or model is None or not model.visible_to(account_id):
            near = self.catalog.nearest(name)
            hint = f'Did you mean "{near}"?' if near else "GET /v1/models lists those that it serves."
            raise NotFound(
                f'This gateway doesn\'t serve the model "{name[:200]}". {hint}',
                code="model_not_found",
                param="model",
            )
        if engine.state is EngineState.STARTING:
            raise Unavailable(
                "The model is still being loaded. Try again in a moment.",
                code="engine_starting",
                retry_after_seconds=5,
            )
        raise Unavailable(
            "The model's engine has stopped and must be restarted. Try again in a minute.",
            code="engine_dead",
            retry_after_seconds=30,
        )


def _tell(served: Served) -> None:
    """What an operator may not expect of a model that is there."""
    name, length = served.model.name, served.model.context_length
    if served.model.card.over:
        log.warning("%s is past its sunset, and is loaded for nobody: take its card out.", name)
    if served.context_length < length:
        log.warning("%s: the context is %d tokens: the card's %d have no room.", name, served.context_length, length)


def _over(name: str, life: Life) -> NotFound:
    instead = f'Use "{life.replaced_by}" instead.' if life.replaced_by else "GET /v1/models lists those that it serves."
    return NotFound(
        f'The model "{name}" is no longer served, since {life.sunset}. {instead}', code="model_not_found", param="model"
    )


def _renderer(model: Model, engine: Engine) -> Renderer:
    renderer = engine.renderer(model.chat_format)
    if model.card.task == "generate" and not renderer.chats:
        log.warning(
            "%s has no chat template: it goes on from texts (/v1/completions, /v1/inference) and refuses "
            "conversations. If it was made for them, put its template into the card's `chat_template`.",
            model.name,
        )
    return renderer

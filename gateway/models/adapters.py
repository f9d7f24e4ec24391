"""LoRA adapters that come and go while the gateway runs: the same on all workers and replicas, within a second or so.

The table says which there are. The process that is asked to add one tries it on its engine first, so that the others
only load what has worked.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from engine.errors import AdapterError, EngineError
from gateway.errors import Conflict, InvalidParameter
from gateway.models.adapter_cards import AdapterCard, adapted
from gateway.models.adapter_store import AdapterStore, AddedAdapter
from gateway.models.fleet import Fleet
from gateway.models.model import Model
from storage.errors import LedgerUnavailable

log = logging.getLogger("farebox.adapters")

REFRESH_SECONDS = 1.0
RETRY_SECONDS = 60.0  # for one that this process's engine doesn't take, though another's did
# A request that found its model just before it was removed has begun by then, or never will.
GRACE_SECONDS = 60.0


class Adapters:
    """Keeps the fleet at what the table says. `running` tells how many requests a model has at the moment."""

    def __init__(self, fleet: Fleet, store: AdapterStore, running: Callable[[str], int], count_max: int) -> None:
        self._fleet = fleet
        self._store = store
        self._running = running
        self._count_max = count_max
        self._seen: tuple[int, int] | None = None
        self._served: dict[int, Model] = {}
        self._failed: dict[int, float] = {}
        self._leaving: dict[int, tuple[Model, float]] = {}
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Start looking at the table. What is in it is served once the engines are ready."""
        self._task = asyncio.create_task(self._keep_fresh(), name="adapters")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def add(self, card: AdapterCard, account_id: int | None, *, actor: str) -> AddedAdapter:
        """Try it, and serve it everywhere. Raises InvalidParameter, Conflict, DuplicateName, Unavailable."""
        if self._fleet.catalog.card(card.name) is not None:
            raise Conflict(f'There is a model card "{card.name}". Choose another name.', code="already_exists")
        if len(self._fleet.catalog.added) >= self._count_max:
            raise Conflict(
                f"FAREBOX_ADAPTERS_MAX allows {self._count_max} added adapters, and there are as many. Remove one.",
                code="too_many_adapters",
            )
        base = self._base(card)
        self._made(base, card, 1, account_id)  # for what is wrong with it
        added = await self._store.begin(card, account_id)
        try:
            await self._load(base, added)
        except BaseException as error:
            await self._store.give_up(added)
            if isinstance(error, AdapterError):
                raise InvalidParameter(str(error), param="adapter") from error
            raise
        await self._store.finish(added, actor=actor)
        return added

    async def remove(self, id: int, *, actor: str) -> AddedAdapter | None:
        """New requests don't find it any more; those that run go on. None if there is none."""
        removed = await self._store.remove(id, actor=actor)
        self._drop(id)
        return removed

    async def refresh(self) -> None:
        """Read the table, if it has changed, and follow it. Raises LedgerUnavailable."""
        state = await self._store.state()
        retry = any(monotonic() - at > RETRY_SECONDS for at in self._failed.values())
        if state != self._seen or retry:
            rows = {row.id: row for row in await self._store.ready()}
            for id in self._served.keys() - rows.keys():
                self._drop(id)
            for id, row in rows.items():
                if id not in self._served:
                    await self._follow(row)
            self._seen = state
        await self._unload()

    async def _keep_fresh(self) -> None:
        while True:
            if self._fleet.ready:
                try:
                    await self.refresh()
                except LedgerUnavailable:
                    log.debug("the adapters can't be read while the database is away")
                except Exception:
                    log.exception("The adapters can't be read")
            await asyncio.sleep(REFRESH_SECONDS)

    async def _follow(self, row: AddedAdapter) -> None:
        """Serve what another process has added, or this one before it was started."""
        if monotonic() - self._failed.get(row.id, float("-inf")) < RETRY_SECONDS:
            return
        try:
            if self._fleet.catalog.card(row.card.name) is not None:
                raise AdapterError(f'The adapter "{row.card.name}" has the name of a model card, which is served.')
            await self._load(self._base(row.card), row)
        except (EngineError, InvalidParameter) as error:
            log.warning("an adapter is not served here: %s", error)
            self._failed[row.id] = monotonic()
        else:
            self._failed.pop(row.id, None)

    async def _load(self, base: Model, added: AddedAdapter) -> None:
        model = self._made(base, added.card, added.id, added.account_id)
        async with self._lock:
            if added.id not in self._served:
                await self._fleet.add(model)
                self._served[added.id] = model

    def _base(self, card: AdapterCard) -> Model:
        base = self._fleet.catalog.card(card.base)
        if base is None:
            raise InvalidParameter(
                f'This gateway serves no model card "{card.base}" that the adapter "{card.name}" could be for. It '
                f"serves {', '.join(self._fleet.catalog.names)}.",
                param="base",
            )
        return base

    def _made(self, base: Model, card: AdapterCard, number: int, account_id: int | None) -> Model:
        try:
            return adapted(base, card, number, account_id)
        except ValueError as error:
            raise InvalidParameter(f'The adapter "{card.name}" can\'t be served: {error}', param="price") from None

    def _drop(self, id: int) -> None:
        model = self._served.pop(id, None)
        if model is not None:
            self._fleet.remove(model)
            self._leaving[id] = (model, monotonic())

    async def _unload(self) -> None:
        for id, (model, since) in list(self._leaving.items()):
            if monotonic() - since > GRACE_SECONDS and not self._running(model.name):
                del self._leaving[id]
                with suppress(EngineError):
                    await self._fleet.unload(model)

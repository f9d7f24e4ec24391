"""`farebox serve --workers N`: several gateway processes on the same engines.

    supervisor      prepares the database, starts the engines, watches everybody, serves nobody
    ├── engines     vLLM's processes
    └── workers     each a whole gateway: socket, ledger, limits, and a seat at each engine

The kernel shares out the connections. Workers meet in the database (money, keys), in Redis (limits), in the engines,
and in the folder of their metrics. When one ends unasked, all end, and whoever started the gateway starts it again:
vLLM's engine has no seat for a newcomer.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, MutableSequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from engine.base import Engine, EngineSpec
from engine.embedded import EmbeddedEngine
from engine.errors import EngineStartError
from engine.factory import create_engine, share_engine
from engine.log_lines import requests_come
from engine.seat import Seat
from gateway.models.catalog import CatalogError, load_catalog
from gateway.models.fleet import Fleet
from gateway.process.assembly import open_gateway, prepare_database
from gateway.process.http_server import Server
from gateway.process.server import ServeError, greet, listen_together, log_listening, run_in_loop, serve_gateway
from gateway.process.streams import Streams
from gateway.request.turns import TIERS
from gateway.settings import Settings, SettingsError
from gateway.telemetry.logs import configure_logging
from gateway.telemetry.metrics import TOGETHER_IN
from storage.errors import LedgerError

log = logging.getLogger("farebox.workers")

READY = "ready"
END_SECONDS = 15.0  # for a worker, on top of the time for its requests, to settle and close


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker is born with. `seats[i]` is for the catalog's engine i, None where each worker has its own."""

    number: int
    settings: Settings
    listener: socket.socket
    seats: list[Seat | None]
    parent: Connection
    mark: str  # of its log lines, for `gateway.process.streams`
    clocks: MutableSequence[int]  # of `gateway.request.turns`, in memory that all workers share


async def supervise(settings: Settings, streams: Streams) -> None:
    """Run the workers until a signal comes. Raises ServeError, SettingsError, CatalogError, LedgerError,
    EngineStartError."""
    if settings.redis_url is None:
        raise SettingsError(
            f"FAREBOX_WORKERS is {settings.workers}, and FAREBOX_REDIS_URL is not set. Several workers share the "
            "limits of a key through Redis; name one, or leave FAREBOX_WORKERS out."
        )
    catalog = load_catalog(settings)
    with ExitStack() as stack:
        listeners = listen_together(settings.host, settings.port, settings.workers)
        for listener in listeners:
            stack.enter_context(listener)
        log_listening(listeners[0])
        first_keys = await prepare_database(settings)
        # For the workers: they import prometheus_client anew. This process counts nothing.
        os.environ[TOGETHER_IN] = stack.enter_context(tempfile.TemporaryDirectory(prefix="farebox-metrics-"))
        supervisor = Supervisor(settings, catalog.engine_specs, listeners, streams.mark)
        await supervisor.run(lambda: greet(streams, settings, catalog, listeners[0], first_keys))


class Supervisor:
    """Starts engines and workers, passes signals on, and ends with the first that ends."""

    def __init__(self, settings: Settings, specs: list[EngineSpec], listeners: list[socket.socket], mark: str) -> None:
        self._settings = settings
        self._mark = mark
        self._engines = [share_engine(spec, settings.workers) for spec in specs]
        self._listeners = listeners
        self._workers: list[Worker] = []
        self._stop = asyncio.Event()
        self._failure = ""
        self._clocks = multiprocessing.get_context("spawn").RawArray("q", len(specs) * len(TIERS))

    async def run(self, ready: Callable[[], None]) -> None:
        """Raises ServeError, EngineStartError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        stopping = asyncio.create_task(self._stop.wait())
        starting = asyncio.create_task(self._start())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                ready()
                await stopping
        finally:
            stopping.cancel()
            starting.cancel()
            await self._end()
        if self._failure:
            raise ServeError(self._failure)

    async def _start(self) -> None:
        """The last engine loads while the workers start; those before it are loaded first: they compete for memory."""
        seats: list[list[Seat | None]] = []
        for index, engine in enumerate(self._engines):
            if engine is None:
                seats.append([None] * self._settings.workers)
                continue
            log.info("loading %s", engine.spec.source)
            seats.append([*await engine.launch()])
            if engine is not self._engines[-1]:
                await engine.loaded(self._telling(index))
        for number, listener in enumerate(self._listeners):
            self._workers.append(self._worker(number, listener, [of_engine[number] for of_engine in seats]))
        if (last := self._engines[-1]) is not None:
            await last.loaded(self._telling(len(self._engines) - 1))
        requests_come()
        await asyncio.gather(*(worker.ready for worker in self._workers))

    def _worker(self, number: int, listener: socket.socket, seats: list[Seat | None]) -> "Worker":
        ours, theirs = multiprocessing.Pipe()
        place = Place(number, self._settings, listener, seats, theirs, self._mark, self._clocks)
        process = multiprocessing.get_context("spawn").Process(
            target=work, args=(place,), name=f"farebox-worker-{number}"
        )
        process.start()
        theirs.close()
        return Worker(number, process, ours, self._on_end)

    def _telling(self, index: int) -> Callable[[], None]:
        def died() -> None:
            for worker in self._workers:
                worker.tell(index)

        return died

    def _on_end(self, worker: "Worker") -> None:
        if not self._stop.is_set():
            self._failure = (
                f"Worker {worker.number} ended with status {worker.process.exitcode}, and the gateway with it. "
                "What it last logged says why; start the gateway again."
            )
            self._stop.set()

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for worker in self._workers:
                worker.terminate()  # the second signal
        self._stop.set()

    async def _end(self) -> None:
        for worker in self._workers:
            worker.terminate()
        ends = [asyncio.ensure_future(worker.ended.wait()) for worker in self._workers]
        if ends:
            await asyncio.wait(ends, timeout=self._settings.shutdown_seconds + END_SECONDS)
        for worker in self._workers:
            worker.close()
        await asyncio.gather(*(engine.stop() for engine in self._engines if engine is not None))


class Worker:
    """The supervisor's view of one: whether it is ready, and whether it has ended."""

    def __init__(
        self, number: int, process: SpawnProcess, pipe: Connection, on_end: Callable[["Worker"], None]
    ) -> None:
        self.number = number
        self.process = process
        self._pipe = pipe
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.ended = asyncio.Event()
        self._loop.add_reader(pipe.fileno(), self._heard)
        self._loop.add_reader(process.sentinel, self._process_ended)

    def tell(self, dead_engine: int) -> None:
        if not self.ended.is_set():
            self._pipe.send(dead_engine)

    def terminate(self) -> None:
        self.process.terminate()

    def close(self) -> None:
        """Kills it if it is still there."""
        if not self.ended.is_set():
            log.error("worker %d doesn't end and is killed; its requests are settled at the next start", self.number)
            self.process.kill()
            self._forget()
        self.process.join()
        self._pipe.close()

    def _heard(self) -> None:
        try:
            self._pipe.recv()
        except (EOFError, OSError):
            self._loop.remove_reader(self._pipe.fileno())
            return
        if not self.ready.done():
            self.ready.set_result(None)

    def _process_ended(self) -> None:
        self._forget()
        self.process.join()
        self.ended.set()
        self._on_end(self)

    def _forget(self) -> None:
        self._loop.remove_reader(self._pipe.fileno())
        self._loop.remove_reader(self.process.sentinel)


def work(place: Place) -> None:
    """A worker's process, from its first to its last statement."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C: the supervisor passes it on as SIGTERM
    configure_logging(place.settings, place.number, mark=place.mark, mark_below=place.mark)
    try:
        run_in_loop(_work(place))
    except (EngineStartError, CatalogError, LedgerError, SettingsError) as error:
        log.critical("%s", error)
        sys.exit(1)


async def _work(place: Place) -> None:
    engines: list[Engine] = []

    def create(spec: EngineSpec) -> Engine:
        engines.append(create_engine(spec, place.seats[len(engines)]))
        return engines[-1]

    fleet = Fleet(load_catalog(place.settings), create)
    async with open_gateway(place.settings, fleet, clocks=place.clocks) as (gateway, _):
        server = Server(gateway, signals=[signal.SIGTERM])

        def heard() -> None:
            try:
                dead = engines[place.parent.recv()]
            except (EOFError, OSError):  # the supervisor is gone, and the engines with it: nothing can be finished
                loop.remove_reader(place.parent.fileno())
                server.handle_exit(signal.SIGTERM, None)
                server.handle_exit(signal.SIGTERM, None)
            else:
                if isinstance(dead, EmbeddedEngine):
                    dead.died()

        loop = asyncio.get_running_loop()
        loop.add_reader(place.parent.fileno(), heard)
        try:
            await serve_gateway(gateway, server, place.listener, lambda: place.parent.send(READY))
        finally:
            loop.remove_reader(place.parent.fileno())

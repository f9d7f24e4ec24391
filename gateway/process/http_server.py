"""uvicorn, with a shutdown that loses nothing and connections that can't be held open for nothing."""

import asyncio
import logging
import signal
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from gateway.app import create_app
from gateway.process.connections import Connection, connection_class
from gateway.state import Gateway

log = logging.getLogger("farebox")

BACKLOG = 2048
SETTLE_SECONDS = 5.0  # for requests that were cut off: settling waits for nothing but the loop's turn
GOODBYE_SECONDS = 1.0  # for clients to take the last bytes of their answers
TICKS_PER_SECOND = 10  # uvicorn's


class Server(uvicorn.Server):
    """The gateway on HTTP. The first signal lets requests finish; a second one, or the settings' time, ends them."""

    def __init__(self, gateway: Gateway, signals: Collection[signal.Signals] = (signal.SIGINT, signal.SIGTERM)) -> None:
        settings = gateway.settings
        super().__init__(
            uvicorn.Config(
                create_app(gateway),
                http=connection_class(settings.headers_timeout_seconds),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nothing here asks for the client's address
                timeout_keep_alive=settings.idle_timeout_seconds,
                backlog=BACKLOG,
            )
        )
        self._gateway = gateway
        self._signals = signals
        self._cut = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's would raise the signal again after the shutdown and so end the process with the ledger open."""
        loop = asyncio.get_running_loop()
        for number in self._signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self._cut.set()
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_PER_SECOND == 0:
            now = asyncio.get_running_loop().time()
            for connection in self._connections():
                connection.abort_if_stuck(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting; answer 503 to what still comes on open connections; let what runs finish, or end it.

        uvicorn's own closes idle connections at once, in the face of a client that is just sending, and waits for ever
        for one that doesn't read.
        """
        self._gateway.stopping = True
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        finishing = asyncio.create_task(self._finish_requests())
        await self._finished_or_cut(finishing)
        self._gateway.pipeline.cut_off()
        await asyncio.wait({finishing}, timeout=SETTLE_SECONDS)
        finishing.cancel()
        await self._close_connections()
        for server in self.servers:
            await server.wait_closed()

    async def _finished_or_cut(self, finishing: "asyncio.Task[None]") -> None:
        seconds = self._gateway.settings.shutdown_seconds
        if running := self._gateway.pipeline.running:
            log.info("finishing %d running requests, within %g s; a second signal ends them", running, seconds)
        clock = asyncio.get_running_loop().call_later(seconds, self._cut.set)
        cut = asyncio.create_task(self._cut.wait())
        await asyncio.wait({finishing, cut}, return_when=asyncio.FIRST_COMPLETED)
        clock.cancel()
        cut.cancel()

    async def _finish_requests(self) -> None:
        while tasks := set(self.server_state.tasks):
            await asyncio.wait(tasks)
        await self._gateway.pipeline.drained()  # what runs for a webhook has no connection to wait for

    async def _close_connections(self) -> None:
        for connection in self._connections():
            connection.shutdown()
        await self._until_closed(GOODBYE_SECONDS)
        for connection in self._connections():
            connection.transport.abort()
        await self._until_closed(GOODBYE_SECONDS)
        if tasks := set(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=GOODBYE_SECONDS)

    async def _until_closed(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self.server_state.connections and loop.time() < end:  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.01)

    def _connections(self) -> list[Connection]:
        return [connection for connection in self.server_state.connections if isinstance(connection, Connection)]

"""`farebox serve`: one process with its socket, database, ledger and engines."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from engine.base import EngineStartError
from engine.factory import create_engine
from gateway.app import create_app
from gateway.assembly import open_gateway
from gateway.bootstrap import FirstKeys
from gateway.catalog import load_catalog
from gateway.fleet import Fleet
from gateway.settings import Settings
from gateway.state import Gateway
from gateway.welcome import welcome

log = logging.getLogger("farebox")

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
SETTLE_SECONDS = 5  # for requests that were cut off: settling waits for nothing but the loop's turn


class ServeError(Exception):
    """The gateway can't start; one sentence says what to do."""


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, before anything slow is done: a port in use is told at once. Raises ServeError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ServeError(f"The host {host!r} isn't an address of this machine: {error.strerror}.") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ServeError(
            f"Farebox can't listen on {host}:{port}: {error.strerror}. Another program may use the port; "
            "choose a free one with --port or FAREBOX_PORT."
        ) from None
    return listener


async def serve(settings: Settings) -> None:
    """Serve until a signal comes. Raises ServeError, CatalogError, LedgerUnavailable, EngineStartError."""
    fleet = Fleet(load_catalog(settings), create_engine)
    with listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        log.info("listening on http://%s:%d; models are being loaded", host, port)
        async with open_gateway(settings, fleet) as (gateway, first_keys):
            server = _server(gateway, settings)
            loading = asyncio.create_task(_load(gateway, server, listener, first_keys))
            await server.serve(sockets=[listener])
            loading.cancel()
            failed = (await asyncio.gather(loading, return_exceptions=True))[0]
            await fleet.stop()
    if isinstance(failed, EngineStartError):
        raise failed


def _server(gateway: Gateway, settings: Settings) -> uvicorn.Server:
    return Server(
        gateway,
        uvicorn.Config(
            create_app(gateway),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=None,
            backlog=BACKLOG,
        ),
    )


class Server(uvicorn.Server):
    """uvicorn, whose shutdown lets running requests end within the settings' time, then settles them."""

    def __init__(self, gateway: Gateway, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._gateway = gateway

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's would raise the signal again after the shutdown and so end the process with the ledger open."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets running requests finish; a second one cuts them off."""
        if self.should_exit:
            self._gateway.pipeline.cut_off()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.stopping = True
        seconds = self._gateway.settings.shutdown_seconds
        running = self._gateway.pipeline.running
        if running:
            log.info("finishing %d running requests, within %g s; a second signal cuts them off", running, seconds)
        cut = asyncio.get_running_loop().call_later(seconds, self._gateway.pipeline.cut_off)
        try:
            await super().shutdown(sockets)
            await self._gateway.pipeline.drained(seconds)  # what runs for a webhook has no connection to wait for
        finally:
            cut.cancel()
            self._gateway.pipeline.cut_off()
            await self._gateway.pipeline.drained(SETTLE_SECONDS)


async def _load(gateway: Gateway, server: uvicorn.Server, listener: socket.socket, first_keys: FirstKeys) -> None:
    try:
        await gateway.fleet.start()
    except EngineStartError:
        server.should_exit = True
        raise
    host, port = listener.getsockname()[:2]
    print(welcome(gateway, host, port, first_keys), flush=True)


def run(settings: Settings) -> None:
    """`serve` on uvloop, where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(settings))
    else:
        uvloop.run(serve(settings))


def configure_logging(settings: Settings) -> None:
    """Plain lines on stderr; the access log is JSON."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("httpx", "httpcore", "asyncio", "aiosqlite", "alembic", "sqlalchemy", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

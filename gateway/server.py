"""`farebox serve`: one process with its socket, database, ledger and engines."""

import asyncio
import gc
import logging
import socket

import uvicorn

from engine.base import EngineStartError
from engine.factory import create_engine
from gateway.assembly import open_gateway
from gateway.bootstrap import FirstKeys
from gateway.catalog import load_catalog
from gateway.fleet import Fleet
from gateway.http_server import BACKLOG, Server
from gateway.settings import Settings
from gateway.state import Gateway
from gateway.welcome import welcome

log = logging.getLogger("farebox")


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
            server = Server(gateway)
            loading = asyncio.create_task(_load(gateway, server, listener, first_keys))
            await server.serve(sockets=[listener])
            loading.cancel()
            failed = (await asyncio.gather(loading, return_exceptions=True))[0]
            await fleet.stop()
    if isinstance(failed, EngineStartError):
        raise failed


async def _load(gateway: Gateway, server: uvicorn.Server, listener: socket.socket, first_keys: FirstKeys) -> None:
    try:
        await gateway.fleet.start()
    except EngineStartError:
        server.should_exit = True
        raise
    # What was loaded stays: without this the garbage collector walks a million objects of vLLM's and torch's again and
    # again, for tenths of a second in which every running request waits.
    gc.collect()
    gc.freeze()
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

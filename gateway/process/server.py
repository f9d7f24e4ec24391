"""`farebox serve`: one process with its socket, database, ledger and engines."""

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from engine.factory import create_engine
from gateway.models.catalog import Catalog, load_catalog
from gateway.models.fleet import Fleet
from gateway.process.assembly import open_gateway
from gateway.process.bootstrap import FirstKeys
from gateway.process.http_server import BACKLOG, Server
from gateway.process.streams import Streams
from gateway.process.welcome import url_of, welcome
from gateway.settings import Settings
from gateway.state import Gateway

log = logging.getLogger("farebox")

# Young objects until they are looked through. A request makes thousands that reference counting frees; at Python's
# default of 700 the collector takes 7% of the front end's CPU per request to find nothing.
GC_ALLOCATIONS = 20_000

# How long a thread that makes a prompt may keep Python's lock while the event loop asks for it. The loop asks several
# times for each token, and with Python's default of 5 ms a long prompt doubles the gaps of every stream.
SWITCH_SECONDS = 0.0005


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
    listener = None
    try:
        listener = _socket(family, kind, protocol)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ServeError(
            f"Farebox can't listen on {url_of(host, port)}: {error.strerror}. Another program may use the port; "
            "choose a free one with --port or FAREBOX_PORT."
        ) from None
    return listener


def listen_together(host: str, port: int, count: int) -> list[socket.socket]:
    """Sockets on one address, among which the kernel shares out the connections. Raises ServeError."""
    with listen(host, port) as probe:  # with SO_REUSEPORT alone, a port in use by another Farebox would be shared too
        family, address = probe.family, probe.getsockname()
    listeners = []
    for _ in range(count):
        listener = _socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        address = listener.getsockname()
        listeners.append(listener)
    return listeners


def _socket(family: int, kind: int, protocol: int = 0) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(
            socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0
        )  # `::` takes IPv4 too, whatever the kernel's default
    return listener


async def serve(settings: Settings, streams: Streams) -> None:
    """Serve until a signal comes. Raises ServeError, CatalogError, LedgerError, EngineStartError."""
    fleet = Fleet(load_catalog(settings), create_engine)
    with listen(settings.host, settings.port) as listener:
        log_listening(listener)
        async with open_gateway(settings, fleet) as (gateway, first_keys):
            server = Server(gateway)
            await serve_gateway(
                gateway, server, listener, lambda: greet(streams, settings, gateway.catalog, listener, first_keys)
            )


def log_listening(listener: socket.socket) -> None:
    log.info("listening on %s; models are being loaded", url_of(*listener.getsockname()[:2]))


def greet(
    streams: Streams, settings: Settings, catalog: Catalog, listener: socket.socket, first_keys: FirstKeys
) -> None:
    """Print what one can do now."""
    host, port = listener.getsockname()[:2]
    streams.say(welcome(settings, catalog, host, port, first_keys))


async def serve_gateway(gateway: Gateway, server: Server, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Load the engines while the probes are answered, call `ready`, and serve until the server is told to stop.

    Raises EngineStartError and whatever else loading ended with.
    """
    loading = asyncio.create_task(_load(gateway, server, ready))
    await server.serve(sockets=[listener])
    loading.cancel()
    failed = (await asyncio.gather(loading, return_exceptions=True))[0]
    await gateway.fleet.stop()
    if isinstance(failed, Exception):
        raise failed


async def _load(gateway: Gateway, server: Server, ready: Callable[[], None]) -> None:
    try:
        await gateway.large_bodies.warm_up()
        await gateway.fleet.start()
        # What was loaded stays: without this the garbage collector walks a million objects of vLLM's and torch's again
        # and again, for tenths of a second in which every running request waits.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS, *gc.get_threshold()[1:])
        sys.setswitchinterval(SWITCH_SECONDS)
        gateway.watch.tell()
        ready()
    except Exception:
        server.should_exit = True
        raise


def run(settings: Settings, streams: Streams | None = None) -> None:
    """Serve until a signal comes: in this process, or in several. What `serve` raises, and SettingsError."""
    streams = streams or Streams(sys.stdout, sys.stderr)
    if settings.workers > 1:
        from gateway.process.workers import supervise  # for most there is nothing to supervise

        run_in_loop(supervise(settings, streams))
    else:
        run_in_loop(serve(settings, streams))


def run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop, where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)

"""Who waits for an answer, as the server knows it: past ASGI, where that would cost a coroutine for each token."""

from collections.abc import Callable
from typing import Final, Protocol

CLIENT: Final = "farebox.client"  # in a request's scope: its Client
FLUSH_SECONDS: Final = 10.0  # for a client to take the rest of what was written, once a connection is to be closed


class Client(Protocol):
    """What `gateway.process.connections` gives each request."""

    def write(self, data: bytes) -> bool:
        """A piece of the body of an answer that has begun, has no Content-Length and is ended by `send`.

        Returns False where the client reads too slowly: then the next piece is to be sent, which waits for it.
        """

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone` when the connection is lost, at once if it is already. For after the request's body."""

    def unwatch(self, gone: Callable[[], None]) -> None:
        """Call it no more."""

"""An answer that is written down while it is sent, so that several clients can be given it."""

import asyncio
from collections.abc import Callable

from starlette.types import Message, Send

from gateway.errors import AnswerLost
from gateway.idempotency.store import Answer

REPLAYED = (b"idempotency-replayed", b"true")
PING = "farebox.ping"  # in a message: it says that the answer goes on, and is no part of it


class Recording:
    """Takes an answer's ASGI messages from its handler and plays them to any number of followers.

    The handler is not held back by a slow follower, until the answer has more than `bytes_max`: then it waits for them
    and nothing is kept any more. `abandoned` is called when there is nobody to wait for.
    """

    def __init__(self, bytes_max: int, abandoned: Callable[[], None]) -> None:
        self.ended = asyncio.Event()
        self._bytes_max = bytes_max
        self._abandoned = abandoned
        self._start: Message | None = None
        self._chunks: list[bytes] = []
        self._gone = 0  # how many chunks before those are not kept any more
        self._size = 0
        self._whole = False
        self._error: Exception | None = None
        self._places: dict[object, int] = {}  # follower -> chunks played
        self._news = asyncio.Event()
        self._ping: Message = {}
        self._pings = 0  # so far: none is kept

    @property
    def too_large(self) -> bool:
        return self._size > self._bytes_max

    @property
    def answer(self) -> Answer | None:
        """The whole answer, if it can be given again: it is a 2xx, came to its end, and is not too large."""
        if self._start is None or not self._whole or self.too_large or not 200 <= self._start["status"] < 300:
            return None
        types = [value.decode("latin-1") for name, value in self._start["headers"] if name == b"content-type"]
        return Answer(self._start["status"], types[0] if types else "", b"".join(self._chunks))

    async def send(self, message: Message) -> None:
        """The handler's `send`."""
        if message.get(PING):
            self._ping = message
            self._pings += 1
            self._tell()
            return
        if message["type"] == "http.response.start":
            self._start = message
        else:
            if body := message.get("body", b""):
                self._chunks.append(body)
                self._size += len(body)
            self._whole = not message.get("more_body", False)
        self._tell()
        if self.too_large:
            await self._wait_for_followers()

    def fill(self, answer: Answer) -> None:
        """Take a stored answer instead of a handler's."""
        headers = [
            (b"content-type", answer.content_type.encode("latin-1")),
            (b"content-length", b"%d" % len(answer.body)),
            REPLAYED,
        ]
        self._start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        self._chunks = [answer.body]
        self._whole = True

    def end(self, error: Exception | None) -> None:
        """Nothing more comes. An error is raised in every follower that has not got a whole answer."""
        if not self._whole:
            self._error = error
        self.ended.set()
        self._tell()

    async def play(self, send: Send, *, again: bool) -> None:
        """Send the answer as it comes; `again` marks it as replayed. Raises what ended it."""
        if again and self.too_large:
            raise AnswerLost("The first answer to this Idempotency-Key is too large to be given twice.")
        follower = object()
        place = self._places[follower] = 0
        try:
            pings = self._pings
            start = await self._started()
            headers = [*start["headers"], REPLAYED] if again and REPLAYED not in start["headers"] else start["headers"]
            await send({**start, "headers": headers})
            while True:
                if pings != self._pings:
                    pings = self._pings
                    await send(self._ping)
                while place < self._count:
                    body = self._chunks[place - self._gone]
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    place = self._places[follower] = place + 1
                    self._tell_if_too_large()
                if self._whole:
                    await send({"type": "http.response.body", "body": b""})
                    return
                if self._error is not None:
                    raise self._error
                await self._next()
        finally:
            del self._places[follower]
            self._tell_if_too_large()

    @property
    def _count(self) -> int:
        return self._gone + len(self._chunks)

    async def _started(self) -> Message:
        while self._start is None:
            if self._error is not None:
                raise self._error
            await self._next()
        return self._start

    async def _wait_for_followers(self) -> None:
        while self._places and min(self._places.values()) < self._count:
            await self._next()
        if not self._places and not self._whole:
            self._abandoned()
            await asyncio.sleep(0)
        self._gone = self._count  # nobody comes later
        self._chunks.clear()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _tell_if_too_large(self) -> None:
        if self.too_large:
            self._tell()

    async def _next(self) -> None:
        await self._news.wait()

"""A bare ASGI application that streams as the gateway does, for comparing HTTP servers: no engine, no keys, no money.

All streams get their next event in the same moment, as from an engine's step.
"""

import asyncio
import json
import time
from typing import Any

STEP_SECONDS = 0.008


class Steps:
    """The beat. A stream waits for the next step."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._beating: asyncio.Task[None] | None = None

    async def next(self) -> None:
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat())
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(STEP_SECONDS)
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)


steps = Steps()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """`POST` of a chat completion: as many chunks as `max_completion_tokens` says."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    tokens = json.loads(body)["max_completion_tokens"] if body else 0
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    head = b'data: {"id":"x","object":"chat.completion.chunk","created":%d,"model":"m","choices":[' % time.time()
    for _ in range(tokens):
        await steps.next()
        event = head + b'{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
        await send({"type": "http.response.body", "body": event, "more_body": True})
    usage = b'],"usage":{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}}\n\n' % (tokens, tokens + 1)
    await send({"type": "http.response.body", "body": head + usage + b"data: [DONE]\n\n"})


def serve_corked(port: int) -> None:
    """uvicorn as the gateway runs it."""
    import uvicorn

    from gateway.process.connections import connection_class

    protocol = connection_class(headers_seconds_max=20.0)
    uvicorn.run(app, port=port, loop="uvloop", http=protocol, ws="none", access_log=False, log_config=None)


if __name__ == "__main__":
    import sys

    serve_corked(int(sys.argv[1]))

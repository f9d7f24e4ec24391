"""The endpoint around the handlers that generate. What every one of them needs happens here, once:

    body ──► Idempotency-Key ──► model ──► checks ──► limits ──► the handler

A handler gets a checked body for a model that its key may use, and has been counted; it can't forget any of it. While
it runs, its client is watched: when that goes away, the handler is cancelled wherever it is.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.bodies import read_body
from gateway.catalog import Catalog, Task
from gateway.connections import CLIENT, Client
from gateway.context import RequestContext
from gateway.errors import GatewayError, InvalidParameter, InvalidRequest, ModelNotAllowed, ShuttingDown, show
from gateway.exchange import Exchange
from gateway.fleet import Served
from gateway.idempotency import Attempt, digest_of, idempotency_key
from gateway.openapi.operation import Operation, operation_of
from gateway.protocol.checks import Body, JSONObject, parse_json, validate
from gateway.state import Gateway
from pricing.keys import Key

# With the body that its `documented` operation names.
Handler = Callable[[Exchange, Served, Any], Awaitable[None]]


class Generating:
    """The ASGI endpoint around a handler that is `documented` with its body."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        operation = operation_of(handler)
        if operation is None or operation.body is None or operation.ranges is None:
            raise TypeError("a handler that generates must be documented with its body and the ranges of its route")
        self._operation, self._body, self._ranges = operation, operation.body, operation.ranges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway: Gateway = scope["app"].state.gateway
        headers = Headers(scope=scope)
        context: RequestContext = scope["farebox.context"]
        if gateway.stopping:
            raise ShuttingDown()
        try:
            body = await read_body(headers, receive, gateway.settings)
        except ClientDisconnect:
            context.client_gone()
            return
        client: Client | None = scope.get(CLIENT)
        key: Key = scope["farebox.key"]
        exchange = Exchange(
            settings=gateway.settings,
            pipeline=gateway.pipeline,
            webhooks=gateway.webhooks,
            context=context,
            key=key,
            body=body,
            path_params=scope.get("path_params", {}),
            headers=headers,
            send=send,
            admission=gateway.limits.admission(key, context.headers),
            write=client.write if client is not None else None,
        )
        watch = _Watch(client, receive)
        try:
            await self._answer(gateway, exchange, scope["path"])
        except asyncio.CancelledError:
            if not watch.gone or watch.task.uncancel() > 0:
                raise
            context.client_gone()
        except GatewayError:
            if not context.status:
                raise
            # else its event has ended the stream
        finally:
            watch.end()

    async def _answer(self, gateway: Gateway, exchange: Exchange, path: str) -> None:
        name = idempotency_key(exchange.headers)
        if name is None:
            await self._handle(gateway, exchange)
            return

        async def record(attempt: Attempt) -> None:
            recorded = replace(exchange, send=attempt.recording.send, write=None, attempt=attempt)
            await self._handle(gateway, recorded)

        digest = digest_of(path, exchange.body)
        await gateway.idempotency.answer(exchange.key.id, name, digest, record, exchange.send)

    async def _handle(self, gateway: Gateway, exchange: Exchange) -> None:
        try:
            served, body = self._checked(gateway, exchange)
            await exchange.admission.enter(served.model.name)
            exchange.context.trace.begin("render")
            await self.handler(exchange, served, body)
        except Exception as error:
            if not exchange.streaming:
                raise
            await exchange.end_with(error)
        finally:
            exchange.admission.release()

    def _checked(self, gateway: Gateway, exchange: Exchange) -> tuple[Served, Body]:
        values = parse_json(exchange.body)
        served = gateway.fleet.find(exchange.path_params.get("model") or _model_name(values))
        exchange.context.model = served.model.name
        _require_allowed(exchange.key, served, self._operation, gateway.catalog)
        return served, validate(self._body, values, served.model.profile.route(self._ranges))


def _model_name(values: JSONObject) -> str:
    name = values.get("model")
    if not isinstance(name, str):
        sent = show(name) if "model" in values else "none"
        raise InvalidParameter(f"`model` must be the name of a model; got {sent}.", param="model")
    return name


def _require_allowed(key: Key, served: Served, operation: Operation, catalog: Catalog) -> None:
    """Raises ModelNotAllowed, and InvalidRequest where the model doesn't do this task."""
    name = served.model.name
    if not key.allows(name):
        raise ModelNotAllowed(f'This key may not use the model "{name}". Ask for a key that may.', param="model")
    if served.model.card.task != operation.task:
        raise InvalidRequest(
            _wrong_task(key, name, operation.task, catalog), code="unsupported_parameter", param="model"
        )


def _wrong_task(key: Key, name: str, task: Task, catalog: Catalog) -> str:
    if task == "generate":
        return f'The model "{name}" makes embeddings and no text. Send it to /v1/embeddings.'
    able = [model.name for model in catalog if model.card.task == "embed" and key.allows(model.name)]
    others = f"These can: {', '.join(able)}." if able else "No model of this gateway can."
    return f'The model "{name}" can\'t make embeddings. {others}'


class _Watch:
    """Cancels the current task when the client goes away. `gone` says that it has; `end` must be called."""

    def __init__(self, client: Client | None, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.gone = False
        self._client = client
        if client is not None:
            client.watch(self._left)
        else:  # another server than ours: ASGI tells by a message
            self._waiting = asyncio.create_task(_disconnected(receive))
            self._waiting.add_done_callback(self._told)

    def _left(self) -> None:
        self.gone = True
        self.task.cancel()

    def _told(self, waiting: "asyncio.Task[None]") -> None:
        if not waiting.cancelled():
            self._left()

    def end(self) -> None:
        if self._client is not None:
            self._client.unwatch(self._left)
        else:
            self._waiting.remove_done_callback(self._told)
            self._waiting.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""The endpoint around the handlers that generate. What every one of them needs happens here, once:

    body ──► Idempotency-Key ──► model ──► checks ──► limits ──► the handler

A handler gets a checked body for a model that its key may use, and has been counted; it can't forget any of it. While
it runs, its client is watched: when that goes away, the handler is cancelled wherever it is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from engine.base import WORKS_FOR
from engine.tokenizing import SHARES_WITH
from gateway.errors import GatewayError, InvalidRequest, ModelNotAllowed, ShuttingDown
from gateway.idempotency.keys import Attempt, Replayed, digest_of, idempotency_key
from gateway.models.catalog import Catalog
from gateway.models.fleet import Served
from gateway.models.model import Task
from gateway.models.tiers import tier_of
from gateway.protocol.body import RequestBody
from gateway.protocol.checks import check, named_model, parse_json, with_ranges
from gateway.protocol.operation import Operation, operation_of
from gateway.request.bodies import read_body
from gateway.request.body_checker import Check
from gateway.request.client import CLIENT, Client
from gateway.request.context import RequestContext
from gateway.request.exchange import Exchange
from gateway.request.large_bodies import VALUES_INLINE, is_large
from gateway.state import Gateway
from pricing.keys import Key

THREAD_BYTES = 2**20  # hashing more takes milliseconds, and lets others go on from a thread

# With the body that its `documented` operation names.
Handler = Callable[[Exchange, Served, Any], Awaitable[None]]


class Generating:
    """The ASGI endpoint around a handler that is `documented` with its body."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        operation = operation_of(handler)
        if operation is None or operation.body is None or not issubclass(operation.body, RequestBody):
            raise TypeError("a handler that generates must be documented with the body of its route")
        self.operation, self.body = operation, operation.body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway: Gateway = scope["app"].state.gateway
        headers = Headers(scope=scope)
        context: RequestContext = scope["farebox.context"]
        if gateway.stopping:
            raise ShuttingDown()
        gateway.check_pace()
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
            turn=gateway.large_bodies.turn(key.id),
            admission=gateway.limits.admission(key, context.limit_headers),
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
            await self.handle(gateway, exchange)
            return

        async def record(attempt: Attempt) -> None:
            recorded = replace(exchange, send=attempt.recording.send, write=None, attempt=attempt)
            await self.handle(gateway, recorded)

        if len(exchange.body) > THREAD_BYTES:
            digest = await asyncio.to_thread(digest_of, path, exchange.body)
        else:
            digest = digest_of(path, exchange.body)
        await gateway.idempotency.answer(exchange.key.id, name, digest, record, exchange.send)

    async def handle(self, gateway: Gateway, exchange: Exchange) -> None:
        """From the body to the answer. Raises what becomes a GatewayError, unless an answer of events has begun."""
        try:
            served, body = await self._checked(gateway, exchange)
            if exchange.tier is None:
                exchange.tier = tier_of(served.model.name, served.model.prices, body.tier, exchange.key.terms.tier)
            WORKS_FOR.set(str(exchange.key.id))
            SHARES_WITH.set(served.shares_with(exchange.key))
            await exchange.admission.enter(served.model.name, body.alternatives())
            if body.streamed:
                exchange.keep_alive()
            exchange.context.trace.begin("render")
            await self.handler(exchange, served, body)
        except Replayed:
            raise  # goes on from a ping as if there had been none
        except Exception as error:
            await exchange.quiet()
            if not exchange.streaming:
                raise
            await exchange.end_with(error)
        finally:
            await exchange.quiet()
            exchange.turn.done()
            exchange.admission.release()

    async def _checked(self, gateway: Gateway, exchange: Exchange) -> tuple[Served, RequestBody]:
        """The model and the valid body; what was ignored in it is named in a header of the answer and on the log line.

        A body of many values is read in another process, since it would hold up the event loop.
        """
        named = exchange.path_params.get("model")
        served = self._served(gateway, exchange, named) if named is not None else None
        if is_large(exchange.body) and await exchange.turn.begin(exchange.body) > VALUES_INLINE:
            served, body, ignored = await self._checked_apart(gateway, exchange, named)
        else:
            values = parse_json(exchange.body)
            served = served or self._served(gateway, exchange, named_model(values))
            body, ignored = check(self.body, values, served.model.profile, gateway.settings.unknown_fields)
        exchange.context.ignore(ignored)
        return served, body

    async def _checked_apart(
        self, gateway: Gateway, exchange: Exchange, named: str | None
    ) -> tuple[Served, RequestBody, tuple[str, ...]]:
        settings = gateway.settings
        profiles = {model.name: model.profile for model in gateway.catalog.visible_to(exchange.key.account_id)}
        job = Check(self.body, exchange.body, profiles, settings.body_values_max, settings.unknown_fields, named)
        found = await gateway.large_bodies.check(job)
        if found.model is None:
            raise found.error or InvalidRequest("The body couldn't be read.")
        served = self._served(gateway, exchange, found.model)
        if found.error is not None:
            raise found.error
        narrowed = with_ranges(self.body, served.model.profile)
        return served, narrowed.remade(found.fields or {}, found.fields_set, found.made), found.ignored

    def _served(self, gateway: Gateway, exchange: Exchange, name: str) -> Served:
        known = gateway.catalog.get(name)
        if known is not None and known.visible_to(exchange.key.account_id):
            exchange.context.headers += known.card.headers()
        served = gateway.fleet.find(name, exchange.key.account_id)
        exchange.context.model = served.model.name
        _require_allowed(exchange.key, served, self.operation, gateway.catalog)
        return served


def _require_allowed(key: Key, served: Served, operation: Operation, catalog: Catalog) -> None:
    """Raises ModelNotAllowed, and InvalidRequest where the model doesn't do this task."""
    name = served.model.name
    if not key.allows(name):
        raise ModelNotAllowed(f'This key may not use the model "{name}". Ask for a key that may.', param="model")
    if operation.task is not None and operation.task != served.model.card.task:
        message = _wrong_task(key, served, operation.task, catalog)
        raise InvalidRequest(message, code="unsupported_parameter", param="model")


# What a model does that writes no text, and where.
_INSTEAD: Mapping[Task, str] = {
    "embed": "makes embeddings and no text. Send it to /v1/embeddings.",
    "score": "scores pairs of texts and writes none. Send it to /v1/score or /v1/rerank.",
}


def _wrong_task(key: Key, served: Served, wanted: Task, catalog: Catalog) -> str:
    name, does = served.model.name, served.model.card.task
    if wanted == "generate":
        return f'The model "{name}" {_INSTEAD[does]}'
    able = [model.name for model in catalog if model.card.task == wanted and key.allows(model.name)]
    others = f"These can: {', '.join(able)}." if able else "No model of this gateway can."
    return f'The model "{name}" can\'t {"make embeddings" if wanted == "embed" else "score pairs of texts"}. {others}'


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

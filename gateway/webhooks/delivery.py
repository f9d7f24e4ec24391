"""Webhooks of the native route: generate after the answer, then call the client's URL, over restarts.

    promise ──► generate ──► fulfil ──► deliver, again and again with growing pauses

The promise is durable before the client hears of it, and the ledger knows the request from its reservation on. So
whatever happens, the client's URL is called at least once with a result or a failure: when this process dies, whoever
settles the request as interrupted finds the promise and sends the failure. `docs/webhooks.md` is the client's view.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from gateway.encoders.native import failed
from gateway.errors import GatewayError, InvalidParameter, InvalidRequest, ShuttingDown, Unavailable, from_exception
from gateway.request.jobs import Job
from gateway.request.metered_generation import Metered
from gateway.request.pipeline import Pipeline
from gateway.schemas.openai import FailedInference
from gateway.telemetry.logs import log_request
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.receipt import Receipt
from gateway.webhooks.calls import SIGNATURE_HEADER, WebhookSettings, sign, signing_secret
from gateway.webhooks.public_http import PinnedTransport, Poster, Resolve, WrongURL, check_url, system_resolve
from gateway.webhooks.store import Lost, Pending, WebhookStore
from pricing.clock import MS_PER_DAY
from pricing.keys import Key
from storage.database import Database
from storage.errors import LedgerUnavailable

log = logging.getLogger("farebox.webhooks")

CALLS_MAX = 32  # at a time
POLL_SECONDS = 5.0  # how soon a call is seen that another process left behind
RETRY_SECONDS = (0.1, 5.0)  # while the database is away
LEASE_SECONDS = 30.0  # on top of the timeout, until an attempt of a process that died is made again
CLOSE_SECONDS = 5.0  # for calls under way at shutdown; what isn't done is repeated after the next start
KEEP_DAYS = 7  # how long it can be looked up how a call ended

Result = Callable[[Metered], Awaitable[Mapping[str, object]]]


class Webhooks:
    """Promises, keeps and delivers. All methods belong to one event loop."""

    def __init__(self, store: WebhookStore, pipeline: Pipeline, metrics: Metrics, settings: WebhookSettings) -> None:
        self._store = store
        self._pipeline = pipeline
        self._metrics = metrics
        self._settings = settings
        self._poster: Poster | None = None
        self._generating: dict[str, asyncio.Task[None]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._closing = False
        self._forgotten_at = 0
        self._loop: asyncio.Task[None] | None = None

    @classmethod
    def open(
        cls,
        database: Database,
        pipeline: Pipeline,
        metrics: Metrics,
        settings: WebhookSettings,
        resolve: Resolve = system_resolve,
    ) -> "Webhooks":
        """Start delivering what is due, also from before a restart. Without a secret nothing is delivered."""
        webhooks = cls(WebhookStore(database), pipeline, metrics, settings)
        if settings.secret is not None:
            webhooks._poster = Poster(
                PinnedTransport(resolve, allow_private=settings.allow_private),
                timeout_seconds=settings.timeout_seconds,
                user_agent=settings.user_agent,
            )
            webhooks._loop = asyncio.create_task(webhooks._deliver(), name="webhooks")
        return webhooks

    async def close(self) -> None:
        """Store what was cut off (`Pipeline.cut_off` comes before), let calls end for a moment, then stop."""
        self._closing = True
        if self._loop is not None:
            self._loop.cancel()
        under_way = {*self._generating.values(), *self._calls}
        if under_way:
            await asyncio.wait(under_way, timeout=CLOSE_SECONDS)
        tasks = [*self._generating.values(), *self._calls, *([self._loop] if self._loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._poster is not None:
            await self._poster.close()

    def secret_of(self, key: Key) -> str:
        """What this key's calls are signed with. Raises InvalidRequest where webhooks are off."""
        if self._settings.secret is None:
            raise InvalidRequest(
                "Webhooks are turned off: the operator of this gateway has set no FAREBOX_WEBHOOK_SECRET. Leave "
                "`webhook` out to get the result in the answer.",
                code="unsupported_parameter",
                param="webhook",
            )
        return signing_secret(self._settings.secret, key.id)

    def check(self, key: Key, url: str) -> None:
        """Raises InvalidParameter for a URL that can't be called, InvalidRequest where webhooks are off."""
        self.secret_of(key)
        try:
            check_url(url, allow_private=self._settings.allow_private)
        except WrongURL as error:
            raise InvalidParameter(f"`webhook` is wrong: {error}", param="webhook") from None

    def wake(self) -> None:
        """There is a call to make, which somebody else has written down."""
        self._wake.set()

    async def start(self, job: Job, url: str, result: Result) -> None:
        """Return once the engine has the job, its money is reserved, and the call to `url` is promised.

        The rest runs on, whether the client waits or not, and keeps its place in the key's limits. Raises
        InvalidParameter for a URL that can't be called, InvalidRequest where webhooks are off, and what `Pipeline.run`
        raises.
        """
        self.check(job.key, url)
        promised: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        kept = replace(job, admission=job.admission.hand_over())
        task = asyncio.create_task(self._generate(kept, url, result, promised), name=f"webhook {job.request_id}")
        self._generating[job.request_id] = task

        def done(_: "asyncio.Task[None]") -> None:
            del self._generating[job.request_id]
            kept.admission.release()

        task.add_done_callback(done)
        try:
            await asyncio.shield(promised)
        except asyncio.CancelledError:
            if not promised.done():
                task.cancel()  # the client left before it was told anything
            raise

    async def _generate(self, job: Job, url: str, result: Result, promised: "asyncio.Future[None]") -> None:
        receipts: list[Receipt] = []
        job = replace(job, settled=receipts.append)

        async def promise() -> None:
            await self._store.promise(job.request_id, job.key.id, url)
            promised.set_result(None)

        try:
            async with self._pipeline.run(job, promise) as metered:
                body = await result(metered)
        except (Exception, asyncio.CancelledError) as error:
            if not promised.done():
                promised.set_exception(error if isinstance(error, Exception) else _cut_off())
                promised.exception()  # the handler may have gone, and then nobody else looks at it
                return
            body = _failure(job.request_id, error, receipts[0])
        fields = receipts[0].fields()
        log_request({"id": job.request_id, "route": job.route, "webhook": True, "key": job.key.prefix, **fields})
        await self._fulfil(job.request_id, json.dumps(body, separators=(",", ":")))

    async def _fulfil(self, request_id: str, body: str) -> None:
        """Store the outcome, for as long as the database takes to come back."""
        pause, longest = RETRY_SECONDS
        while True:
            try:
                if not await self._store.fulfil(request_id, body):
                    log.error("another process took the webhook of %s for lost; its failure is final", request_id)
                self._wake.set()
                return
            except LedgerUnavailable as error:
                if self._closing:
                    log.warning("the result of %s could not be stored, and is lost: %s", request_id, error)
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)

    async def _deliver(self) -> None:
        while True:
            self._wake.clear()
            wait_seconds = POLL_SECONDS
            try:
                wait_seconds = await self._step()
            except LedgerUnavailable as error:
                log.warning("webhooks wait: %s", error)
            except Exception:
                log.exception("delivering webhooks failed; it goes on")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._wake.wait()

    async def _step(self) -> float:
        """Begin every call that is due. Returns the seconds until the next one."""
        store = self._store
        for lost in await store.lost():
            if lost.request_id not in self._generating:
                await store.fulfil(lost.request_id, json.dumps(_loss(lost)))
        if store.now() - self._forgotten_at > MS_PER_DAY:
            await store.forget(store.now() - KEEP_DAYS * MS_PER_DAY)
            self._forgotten_at = store.now()
        for call in await store.pending(CALLS_MAX):
            early_ms = call.next_attempt_at - store.now()
            if early_ms > 0:
                return min(early_ms / 1000, POLL_SECONDS)
            if len(self._calls) >= CALLS_MAX:
                break  # one of them wakes the loop when it ends
            lease_ms = int((self._settings.timeout_seconds + LEASE_SECONDS) * 1000)
            if await store.claim(call, store.now() + lease_ms):
                task = asyncio.create_task(self._call(call))
                self._calls.add(task)
                task.add_done_callback(self._ended)
        return POLL_SECONDS

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._calls.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a webhook's attempt was not recorded; it is made again: %s", error)

    async def _call(self, call: Pending) -> None:
        """One attempt."""
        assert self._poster is not None
        assert self._settings.secret is not None
        body = call.body.encode()
        signature = sign(signing_secret(self._settings.secret, call.key_id), body, self._store.now() // 1000)
        headers = {"content-type": "application/json", SIGNATURE_HEADER: signature, "x-request-id": call.request_id}
        error = await self._poster.post(call.url, body, headers)
        attempts = call.attempts + 1
        if error is None:
            self._metrics.webhooks.labels("delivered").inc()
            await self._store.delivered(call)
            return
        log.warning("webhook of %s, attempt %d of %d: %s", call.request_id, attempts, self._settings.attempts, error)
        if attempts >= self._settings.attempts:
            self._metrics.webhooks.labels("given_up").inc()
            await self._store.give_up(call, error)
        else:
            self._metrics.webhooks.labels("retried").inc()
            await self._store.postpone(call, self._settings.pause_ms(attempts), error)


def _failure(request_id: str, error: BaseException, receipt: Receipt) -> FailedInference:
    known = from_exception(error) if isinstance(error, Exception) else _cut_off()
    if isinstance(known, ShuttingDown):
        known = _cut_off()
    if known.code == "internal_error":
        log.error("request %s failed after its answer", request_id, exc_info=error)
    return failed(request_id, known.message, known.code, receipt.counts, receipt.cost)


def _loss(lost: Lost) -> FailedInference:
    message = "The gateway stopped before the result was stored. Only the tokens that were generated were charged."
    return failed(lost.request_id, message, "interrupted", lost.counts, lost.cost)


def _cut_off() -> GatewayError:
    return Unavailable(
        "The gateway was shut down before the generation was done. Nothing was charged.",
        code="shutting_down",
        retry_after_seconds=5,
    )

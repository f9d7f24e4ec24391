"""Limits in Redis, and what happens while Redis is away."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from prometheus_client import Counter

from gateway.errors import Unavailable
from gateway.limits.admission import LimitDefaults, RateLimits
from gateway.limits.clients import RedisUnsuitableError
from gateway.limits.memory_store import Bounds, Levels, MemoryStore
from gateway.limits.redis_store import RedisAway, RedisStore
from gateway.settings import Settings, SettingsError
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("farebox.limits")

PROBE_SECONDS_MIN = 0.05
PROBE_SECONDS_MAX = 2.0


class SharedLimits:
    """Redis while it answers; else this process's own limits, which know what this process admitted before.

    The first call that fails pays the timeout. From then on nobody asks Redis but a probe in the background, until it
    answers again. With `refuse` a request is refused meanwhile (503) instead of being limited for itself.
    """

    def __init__(
        self,
        redis: RedisStore,
        alone: MemoryStore,
        *,
        refuse: bool = False,
        on_fallback: Callable[[], None] = lambda: None,
    ) -> None:
        self.shared = True
        self._redis = redis
        self._alone = alone
        self._refuse = refuse
        self._on_fallback = on_fallback
        self._probing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect; where Redis is away, go on without it. Raises RedisUnsuitableError."""
        try:
            await self._redis.ping()
        except RedisAway as error:
            self._lost(error)

    async def enter(self, visit: str, bounds: Bounds) -> Levels:
        if self.shared:
            try:
                levels = await self._redis.enter(visit, bounds)
            except RedisAway as error:
                self._lost(error)
            else:
                if levels.refused is None:
                    self._alone.note(visit, bounds)
                return levels
        return await self._without().enter(visit, bounds)

    async def take(self, visit: str, bounds: Bounds, tokens: int) -> Levels:
        if self.shared:
            try:
                levels = await self._redis.take(visit, bounds, tokens)
            except RedisAway as error:
                self._lost(error)
            else:
                if levels.refused is None:
                    self._alone.note_tokens(visit, bounds, tokens)
                return levels
        return await self._without().take(visit, bounds, tokens)

    def leave(self, visit: str, bounds: Bounds, tokens: int | None) -> None:
        self._alone.leave(visit, bounds, tokens)
        # Also for a visit that entered without Redis: a call that we gave up on may have counted it there.
        leave = self._redis.leave if self.shared else self._redis.leave_later
        leave(visit, bounds, tokens)

    async def look(self, bounds: Bounds) -> Levels:
        if self.shared:
            try:
                return await self._redis.look(bounds)
            except RedisAway as error:
                self._lost(error)
        return await self._alone.look(bounds)

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probing
        await self._redis.close()

    def _without(self) -> MemoryStore:
        self._on_fallback()
        if self._refuse:
            raise Unavailable(
                "The limits of this key can't be checked now. Try again in a moment.",
                code="limits_unavailable",
                retry_after_seconds=2,
            )
        return self._alone

    def _lost(self, error: RedisAway) -> None:
        if self.shared:
            self.shared = False
            meanwhile = "requests are refused" if self._refuse else "each process limits for itself"
            log.warning("Redis is away (%s); %s until it is back", error, meanwhile)
            self._probing = asyncio.create_task(self._probe(), name="redis probe")

    async def _probe(self) -> None:
        pause = 0.0
        while not self.shared:
            await asyncio.sleep(pause)
            pause = min(max(PROBE_SECONDS_MIN, 2 * pause), PROBE_SECONDS_MAX)
            with contextlib.suppress(RedisAway, RedisUnsuitableError):
                await self._redis.ping()
                self.shared = True
                self._redis.catch_up()
                log.warning("Redis is back; limits are shared again")


async def open_limits(settings: Settings, metrics: Metrics) -> RateLimits:
    """The limits that the settings ask for, in Redis where there is one. Raises SettingsError."""
    defaults = LimitDefaults(
        settings.limit_requests_per_minute,
        settings.limit_tokens_per_minute,
        settings.limit_concurrent_requests,
        settings.limit_alternatives_per_slot,
    )
    if settings.redis_url is None:
        return RateLimits(MemoryStore(), defaults)
    try:
        redis = RedisStore(
            settings.redis_url.get_secret_value(),
            timeout_seconds=settings.redis_timeout_seconds,
            lease_ms=int(settings.lease_seconds * 1000),
        )
    except ValueError as error:
        raise SettingsError(
            f"FAREBOX_REDIS_URL is wrong: {error}. It looks like redis://user:password@host:6379/0."
        ) from None
    fallbacks = Counter(
        "farebox_limit_fallbacks",
        "Requests that were limited (or refused) without Redis.",
        registry=metrics.registry,
    )
    shared = SharedLimits(
        redis,
        MemoryStore(),
        refuse=settings.limits_without_redis == "refuse",
        on_fallback=fallbacks.inc,
    )
    try:
        await shared.open()
    except RedisUnsuitableError as error:
        await shared.close()
        raise SettingsError(f"FAREBOX_REDIS_URL is wrong: {error}.") from None
    metrics.gauge(
        "farebox_limits_shared", "1 while limits are shared through Redis.", [], lambda: {(): shared.shared}, "min"
    )
    return RateLimits(shared, defaults)

"""Counting for limits in Redis, for several processes: one atomic script for each step.

A request and its slot are counted in one round trip, its tokens in a second one (only for keys with a limit of tokens).
Times are Redis's own, so the processes' clocks don't matter. A slot is a lease that its process renews: those of a dead
process free themselves. All names of one key share a hash tag, so that a cluster keeps them together.
"""

import asyncio
import contextlib
from collections import defaultdict, deque
from typing import Any

from redis.exceptions import RedisError

from gateway.limits.clients import LimitsRedis, RedisUnsuitableError
from gateway.limits.lua import COUNT, LEAVE, RENEW
from gateway.limits.memory_store import WINDOW_MS, Bound, Bounds, Kind, Level, Levels
from gateway.limits.patience import within

OWED_MAX = 10_000  # more are left to their leases
REFUSED: tuple[Kind | None, ...] = (None, "requests", "tokens", "concurrent")


class RedisAway(Exception):
    """Redis did not answer in time, or not as it should."""


class RedisStore:
    """See `gateway.limits.memory_store.LimitStore`; its calls raise RedisAway. It belongs to one event loop."""

    def __init__(self, url: str, *, timeout_seconds: float, lease_ms: int, window_ms: int = WINDOW_MS) -> None:
        self._timeout_seconds = timeout_seconds
        self._lease_ms = lease_ms
        self._window_ms = window_ms
        self._redis = LimitsRedis(url, timeout_seconds)
        self._slots: dict[str, str] = {}  # slot -> scope, of the visits that run
        self._leaving: defaultdict[str, set[str]] = defaultdict(set)  # scope -> slots that are being freed
        self._owed: deque[tuple[str, Bounds, int | None]] = deque(maxlen=OWED_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None

    async def enter(self, visit: str, bounds: Bounds) -> Levels:
        if bounds.concurrent is not None:
            self._slots |= dict.fromkeys(_slots(visit, bounds), bounds.concurrent.scope)
            if self._renewing is None:
                self._renewing = asyncio.create_task(self._keep_renewing(), name="limit leases")
        levels = await self._levels("enter", visit, bounds, 0)
        if levels.refused is not None:
            self._let_go(visit, bounds)
        return levels

    async def take(self, visit: str, bounds: Bounds, tokens: int) -> Levels:
        return await self._levels("take", visit, bounds, tokens)

    async def look(self, bounds: Bounds) -> Levels:
        return await self._levels("look", "", bounds, 0)

    def leave(self, visit: str, bounds: Bounds, tokens: int | None) -> None:
        self._let_go(visit, bounds)
        if bounds.concurrent is None and (bounds.tokens is None or tokens is None):
            return
        scope = bounds.concurrent.scope if bounds.concurrent is not None else ""
        self._leaving[scope].update(_slots(visit, bounds))
        task = asyncio.get_running_loop().create_task(self._free(visit, scope, bounds, tokens))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def leave_later(self, visit: str, bounds: Bounds, tokens: int | None) -> None:
        """`leave` while Redis is away: made up for in `catch_up`."""
        self._let_go(visit, bounds)
        self._owed.append((visit, bounds, tokens))

    def _let_go(self, visit: str, bounds: Bounds) -> None:
        for slot in _slots(visit, bounds):
            self._slots.pop(slot, None)

    async def ping(self) -> None:
        """Return when it works, which may take some seconds. Raises RedisAway, RedisUnsuitableError."""
        try:
            await self._redis.check()
        except RedisUnsuitableError:
            raise
        except (RedisError, OSError, TimeoutError) as error:
            raise _away(error) from error

    def catch_up(self) -> None:
        """Redis is back: free what was left meanwhile."""
        while self._owed:
            self.leave(*self._owed.popleft())

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timeout_seconds)
        await self._redis.close()

    async def _levels(self, step: str, visit: str, bounds: Bounds, tokens: int) -> Levels:
        limits = [-1 if bound is None else bound.limit for bound in (bounds.requests, bounds.tokens, bounds.concurrent)]
        # A slot that this process has freed must not refuse its next request, even if Redis hears of it later.
        leaving = self._leaving.get(bounds.concurrent.scope, ()) if bounds.concurrent is not None else ()
        arguments: list[str | int] = [step, visit, self._window_ms, self._lease_ms, *limits, tokens]
        arguments += [bounds.slots, *leaving]
        found: list[int] = await self._bounded(self._redis.run(COUNT, _names(bounds), arguments))
        refused, *numbers = map(int, found)
        return Levels(Level(*numbers[0:3]), Level(*numbers[3:6]), Level(numbers[6]), REFUSED[refused])

    async def _free(self, visit: str, scope: str, bounds: Bounds, tokens: int | None) -> None:
        try:
            # Where Redis is away, the slot's lease runs out and the tokens leave the window by themselves.
            with contextlib.suppress(RedisAway):
                arguments: list[str | int] = [visit, -1 if tokens is None else tokens, bounds.slots]
                await self._bounded(self._redis.run(LEAVE, _names(bounds)[1:], arguments))
        finally:
            self._leaving[scope].difference_update(_slots(visit, bounds))
            if not self._leaving[scope]:
                del self._leaving[scope]

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            by_scope: defaultdict[str, list[str]] = defaultdict(list)
            for slot, scope in self._slots.items():
                by_scope[scope].append(slot)
            for scope, slots in by_scope.items():
                with contextlib.suppress(RedisAway):
                    name = _name(Bound(scope, 0), "concurrent")
                    await self._bounded(self._redis.run(RENEW, [name], [self._lease_ms, *slots]))

    async def _bounded(self, call: Any) -> Any:
        try:
            return await within(self._timeout_seconds, call)
        except (RedisError, OSError, TimeoutError) as error:
            raise _away(error) from error


def _away(error: Exception) -> RedisAway:
    return RedisAway(f"{type(error).__name__}: {error}"[:200])


def _slots(visit: str, bounds: Bounds) -> list[str]:
    """The names of a visit's slots, as the scripts make them."""
    return [visit, *(f"{visit}#{number}" for number in range(1, bounds.slots))]


def _names(bounds: Bounds) -> list[str]:
    """The script's keys; a limit that there isn't has a name that is never touched."""
    scope = next(b.scope for b in (bounds.requests, bounds.concurrent, bounds.tokens, Bound("0", 0)) if b is not None)
    missing = Bound(scope, 0)
    return [
        _name(bounds.requests or missing, "requests"),
        _name(bounds.concurrent or missing, "concurrent"),
        _name(bounds.tokens or missing, "tokens"),
        _name(bounds.tokens or missing, "costs"),
    ]


def _name(bound: Bound, what: str) -> str:
    key_id, _, model = bound.scope.partition(":")
    return f"farebox:limits:{{{key_id}}}:{what}:{model}"

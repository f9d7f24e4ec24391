"""Counting for limits: what a store must do, and the store of one process, which is exact."""

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from time import monotonic_ns
from typing import Literal, NamedTuple, Protocol

WINDOW_MS = 60_000

Kind = Literal["requests", "tokens", "concurrent"]
Clock = Callable[[], int]
"""Gives milliseconds that never jump. Tests pass their own."""


def monotonic_ms() -> int:
    return monotonic_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit. `scope` names what is counted together: a key's id, or `id:model`."""

    scope: str
    limit: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one request; None where there is no limit. `slots` is how many of `concurrent` it takes."""

    requests: Bound | None = None
    tokens: Bound | None = None
    concurrent: Bound | None = None
    slots: int = 1


class Level(NamedTuple):
    """What is used of a limit. `reset_ms`: until nothing is; `wait_ms`: until what was asked for fits."""

    used: int = 0
    reset_ms: int = 0
    wait_ms: int = 0


class Levels(NamedTuple):
    """What is left of a request's limits, itself counted; `refused` is the limit that it doesn't fit, if any."""

    requests: Level = Level()
    tokens: Level = Level()
    concurrent: Level = Level()
    refused: Kind | None = None


class LimitStore(Protocol):
    """Counts visits. A visit is one request on its way through the gateway, named by a random string."""

    async def enter(self, visit: str, bounds: Bounds) -> Levels:
        """Count the request and take its slots, both or (if refused) neither. Refused, too, where no token is left."""

    async def take(self, visit: str, bounds: Bounds, tokens: int) -> Levels:
        """Count tokens, all or (if refused) none. Once for each visit."""

    def leave(self, visit: str, bounds: Bounds, tokens: int | None) -> None:
        """Free the slots and correct the tokens to what the visit came to (None: as taken).

        Never waits, so that it works on every way out. For a visit that never entered it does nothing.
        """

    async def look(self, bounds: Bounds) -> Levels:
        """What is left of them, counting nothing."""

    async def close(self) -> None: ...


class Window:
    """The grants of the last minute, oldest first, and their sum."""

    __slots__ = ("_grants", "used")

    def __init__(self) -> None:
        self._grants: OrderedDict[str, tuple[int, int]] = OrderedDict()  # visit -> when, cost
        self.used = 0

    def forget(self, until: int) -> None:
        """Drop what was granted at `until` or earlier."""
        while self._grants and next(iter(self._grants.values()))[0] <= until:
            self.used -= self._grants.popitem(last=False)[1][1]

    def add(self, visit: str, at: int, cost: int) -> None:
        self._grants[visit] = (at, cost)
        self.used += cost

    def correct(self, visit: str, cost: int) -> None:
        """Change a grant's cost afterwards, if it is still in the window."""
        if visit in self._grants:
            at, taken = self._grants[visit]
            self._grants[visit] = (at, cost)
            self.used += cost - taken

    def level(self, now: int, window_ms: int, surplus: int = 0) -> Level:
        """`surplus` is how much must be forgotten before what was asked for fits."""
        if not self._grants:
            return Level(self.used, 0, window_ms if surplus > 0 else 0)
        newest = next(reversed(self._grants.values()))[0]
        return Level(self.used, newest + window_ms - now, self._wait(now, window_ms, surplus))

    def _wait(self, now: int, window_ms: int, surplus: int) -> int:
        if surplus <= 0:
            return 0
        # A refusal must stay cheap: after this many grants it says when to look again.
        for at, cost in islice(self._grants.values(), SCAN_MAX):
            surplus -= cost
            if surplus <= 0:
                return at + window_ms - now
        return at + window_ms - now if len(self._grants) > SCAN_MAX else window_ms


SCAN_MAX = 200


class Slots:
    """What is taken of a limit on requests at a time, by visit."""

    __slots__ = ("_held", "used")

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self.used = 0

    def take(self, visit: str, slots: int) -> None:
        self._held[visit] = slots
        self.used += slots

    def free(self, visit: str) -> None:
        self.used -= self._held.pop(visit, 0)


class MemoryStore:
    """Limits of one process. No call gives way to another task, so they are exact."""

    def __init__(self, window_ms: int = WINDOW_MS, clock: Clock = monotonic_ms) -> None:
        self._window_ms = window_ms
        self._clock = clock
        self._requests: defaultdict[str, Window] = defaultdict(Window)
        self._tokens: defaultdict[str, Window] = defaultdict(Window)
        self._slots: defaultdict[str, Slots] = defaultdict(Slots)
        self._swept_at = clock()

    async def enter(self, visit: str, bounds: Bounds) -> Levels:
        before = self._levels(bounds, requests=1, tokens=1, slots=bounds.slots)
        if before.refused is not None:
            return before
        self.note(visit, bounds)
        return before._replace(
            requests=self._after(before.requests, 1) if bounds.requests is not None else before.requests,
            concurrent=Level(before.concurrent.used + bounds.slots) if bounds.concurrent else before.concurrent,
        )

    async def take(self, visit: str, bounds: Bounds, tokens: int) -> Levels:
        before = self._levels(bounds, tokens=tokens)
        if before.refused is not None or bounds.tokens is None:
            return before
        self.note_tokens(visit, bounds, tokens)
        return before._replace(tokens=self._after(before.tokens, tokens))

    def _after(self, before: Level, granted: int) -> Level:
        """What a level becomes with a grant of this moment."""
        return Level(before.used + granted, self._window_ms)

    def note(self, visit: str, bounds: Bounds) -> None:
        """Count a request that another store admitted."""
        if bounds.requests is not None:
            self._requests[bounds.requests.scope].add(visit, self._clock(), 1)
        if bounds.concurrent is not None:
            self._slots[bounds.concurrent.scope].take(visit, bounds.slots)

    def note_tokens(self, visit: str, bounds: Bounds, tokens: int) -> None:
        """Count tokens that another store admitted."""
        if bounds.tokens is not None:
            self._tokens[bounds.tokens.scope].add(visit, self._clock(), tokens)

    def leave(self, visit: str, bounds: Bounds, tokens: int | None) -> None:
        if bounds.concurrent is not None and bounds.concurrent.scope in self._slots:
            slots = self._slots[bounds.concurrent.scope]
            slots.free(visit)
            if not slots.used:
                del self._slots[bounds.concurrent.scope]
        if bounds.tokens is not None and tokens is not None and bounds.tokens.scope in self._tokens:
            self._tokens[bounds.tokens.scope].correct(visit, tokens)

    async def look(self, bounds: Bounds) -> Levels:
        return self._levels(bounds)

    async def close(self) -> None:
        return None

    def _levels(self, bounds: Bounds, *, requests: int = 0, tokens: int = 0, slots: int = 0) -> Levels:
        """What is left of the limits; `refused` is the first that has no room for what is asked for on top."""
        now = self._clock()
        self._sweep(now)
        refused: Kind | None = None
        of_requests = of_tokens = of_slots = Level()
        if (bound := bounds.concurrent) is not None:
            of_slots = Level(self._slots[bound.scope].used if bound.scope in self._slots else 0)
            refused = "concurrent" if slots and of_slots.used + slots > bound.limit else refused
        if (bound := bounds.tokens) is not None:
            of_tokens, fits = self._level(self._tokens, bound, tokens, now)
            refused = refused if fits else "tokens"
        if (bound := bounds.requests) is not None:
            of_requests, fits = self._level(self._requests, bound, requests, now)
            refused = refused if fits else "requests"
        return Levels(of_requests, of_tokens, of_slots, refused)

    def _level(self, windows: defaultdict[str, Window], bound: Bound, more: int, now: int) -> tuple[Level, bool]:
        window = windows.get(bound.scope)
        if window is None:
            window = Window()
        window.forget(now - self._window_ms)
        surplus = window.used + more - bound.limit if more else 0
        return window.level(now, self._window_ms, surplus), surplus <= 0

    def _sweep(self, now: int) -> None:
        """Once a window: let go of keys that are quiet."""
        if now - self._swept_at < self._window_ms:
            return
        self._swept_at = now
        for windows in (self._requests, self._tokens):
            for scope, window in list(windows.items()):
                window.forget(now - self._window_ms)
                if window.level(now, self._window_ms).reset_ms == 0:
                    del windows[scope]

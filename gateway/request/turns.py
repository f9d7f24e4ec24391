"""Whose turn it is in an engine's queue: a number for each request. vLLM's own heap orders by it, the lowest first,
and takes the place of the highest first where memory runs out.

The tiers are far apart. Within one, accounts take turns by start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM
1996): a request starts at the virtual time that its tier has reached, or where the account's request before it ends,
whichever is later, and ends that many tokens later, the more so the lighter the account. So who has 500 requests
waiting has spread them over the time to come, and who comes with one is among the next. A request's tokens are
estimated when it comes and put right when it has ended.

The virtual time of a tier is where the last request started that the engine has begun. Several front ends of an engine
share it; where an account's requests end is known to each of them alone.
"""

from collections.abc import Callable, MutableSequence, Sequence
from typing import Final

from engine.base import Engine
from pricing.key import WEIGHT, Key
from pricing.tier import Tier

TIERS: Final = tuple(Tier)
TIER_STEP: Final = 2**56
PARTS: Final = 1024  # of a token, so that heavy accounts move on too
ACCOUNTS_MAX: Final = 4096  # of which a clock remembers where they end
EXPECTED: Final = 128.0  # tokens of an answer, before any has ended
NEWEST: Final = 0.05  # how much the newest answer says about the next


class Turns:
    """The clocks of all engines; `shared` holds their virtual times where other front ends have the same engines."""

    def __init__(self, engines: Sequence[Engine], shared: MutableSequence[int] | None = None) -> None:
        times = [0] * (len(engines) * len(TIERS)) if shared is None else shared
        self._clocks = {
            (engine, tier): Clock(times, index * len(TIERS) + rank, (rank - 1) * TIER_STEP)
            for index, engine in enumerate(engines)
            for rank, tier in enumerate(TIERS)
        }

    def turn(self, engine: Engine, tier: Tier, key: Key, prompt: int, completion_max: int) -> "Turn":
        """The next turn of this key's account. Its `done` must be called."""
        return self._clocks[engine, tier].turn(key.account_id, key.weight, prompt, completion_max)


class Clock:
    """The virtual time of one tier on one engine, which is `times[place]`; its numbers begin at `base`."""

    def __init__(self, times: MutableSequence[int], place: int, base: int) -> None:
        self._times = times
        self._place = place
        self._base = base
        self._ends: dict[int, int] = {}  # where the last request of an account ends
        self._expected = EXPECTED

    @property
    def now(self) -> int:
        return self._times[self._place]

    @property
    def accounts(self) -> int:
        """How many are remembered."""
        return len(self._ends)

    def turn(self, account_id: int, weight: int, prompt: int, completion_max: int) -> "Turn":
        tokens = prompt + min(completion_max, int(self._expected))
        start = max(self.now, self._ends.get(account_id, 0))
        self._ends[account_id] = start + _length(tokens, weight)
        if len(self._ends) > ACCOUNTS_MAX:
            self._forget()
        return Turn(self, account_id, weight, tokens, start, self._base + min(start, TIER_STEP - 1))

    def began(self, start: int) -> None:
        if start > self.now:
            self._times[self._place] = start

    def correct(self, account_id: int, weight: int, tokens: int, used: int, completion: int) -> None:
        if completion:
            self._expected += NEWEST * (completion - self._expected)
        if account_id in self._ends:
            self._ends[account_id] += _length(used - tokens, weight)

    def _forget(self) -> None:
        """Who ends before now is as if unknown; of the others those that end last have most to lose by it."""
        now = self.now
        ahead = {account: end for account, end in self._ends.items() if end > now}
        kept = sorted(ahead.items(), key=lambda one: one[1])[-ACCOUNTS_MAX // 2 :]
        self._ends = dict(kept)


class Turn:
    """One request's place: `priority` is the engine's number for it."""

    __slots__ = ("_account_id", "_clock", "_start", "_tokens", "_weight", "priority")

    def __init__(self, clock: Clock, account_id: int, weight: int, tokens: int, start: int, priority: int) -> None:
        self._clock = clock
        self._account_id = account_id
        self._weight = weight
        self._tokens = tokens
        self._start = start
        self.priority = priority

    @property
    def began(self) -> Callable[[], None]:
        """For the engine to call when it has begun the request."""
        clock, start = self._clock, self._start
        return lambda: clock.began(start)

    def done(self, used: int, completion: int) -> None:
        """It has ended, and the engine worked on `used` tokens for it, of which `completion` are its answer."""
        self._clock.correct(self._account_id, self._weight, self._tokens, used, completion)


def _length(tokens: int, weight: int) -> int:
    return tokens * PARTS * WEIGHT // weight

"""How much a key may ask for: requests and tokens per minute, and requests at a time.

A key's own number (`KeyTerms`) holds for all its models together and takes the place of the settings' default, which
holds for each key and model apart.

- **Windows move.** In any 60 s no more than the limit is admitted: each grant is remembered until it is a minute old.
- **Requests** count once they are parsed, and stay counted whatever becomes of them, as at OpenAI; so a key that sends
  prompts which are refused later (for their tokens, for money) can't keep the tokenizer busy.
- **Tokens** are admitted by the worst case, prompt tokens + n x max_tokens, and corrected to what was used when the
  request ends. Admitting by the prompt alone would let 200 requests at a time run past a limit by any factor; here the
  tokens of a window never exceed it. A worst case larger than the whole limit counts as the whole limit, so that a
  client who sends no max_tokens is admitted when nothing else is counted; only a prompt that is larger by itself can't
  ever pass. Tokens belong to the moment of admission.
- **Slots** (requests at a time) are freed on every way out. Alternatives of log probabilities take slots of their own,
  since each of them is work for every token: one for each `alternatives_per_slot`, rounded up, but never more than the
  whole limit, so that a request alone is always admitted.

Why not the library `limits`: its moving window stores one item per token (17 ms of Redis's one thread for a request of
17,000 tokens, measured; here an entry per request), it can't correct a cost, it has no limit on requests at a time, and
several limits cost a round trip each and aren't counted together or not at all. `memory_store` is what's left.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import RateLimited
from gateway.limits.memory_store import Bound, Bounds, Kind, Level, Levels, LimitStore
from pricing.keys import Key

SECOND_MS = 1000
CONCURRENT_RETRY_MS = 1000  # nobody knows when a running request ends

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class LimitDefaults:
    """For each key and model, where the key has no number of its own; None means no limit.

    `alternatives_per_slot` holds for every key; None: they take no slots.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    alternatives_per_slot: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit and what is left of it. `model` is None where all models of the key count together."""

    kind: Kind
    model: str | None
    limit: int
    level: Level

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.level.used)


class RateLimits:
    """The limits of every key."""

    def __init__(self, store: LimitStore, defaults: LimitDefaults) -> None:
        self._store = store
        self._defaults = defaults

    def admission(self, key: Key, headers: RawHeaders) -> "Admission":
        """For one request. `headers` is where it writes the `x-ratelimit-*` of the answer, whatever that will be."""
        return Admission(self._store, self, key, headers)

    async def standings(self, key: Key, models: Iterable[str]) -> list[Standing]:
        """Every limit of the key, the defaults once for each model."""
        found: dict[str, Standing] = {}
        for model in models:
            bounds = self.bounds(key, model)
            levels = await self._store.look(bounds)
            for kind, bound, level in _limits(bounds, levels):
                own = bound.scope == str(key.id)
                found[f"{kind} {bound.scope}"] = Standing(kind, None if own else model, bound.limit, level)
        return list(found.values())

    def bounds(self, key: Key, model: str, alternatives: int = 0) -> Bounds:
        """The limits of a request of this key for this model, with this many alternatives for each step."""
        terms, defaults = key.terms, self._defaults

        def bound(own: int | None, default: int | None) -> Bound | None:
            if own is not None:
                return Bound(str(key.id), own)
            return Bound(f"{key.id}:{model}", default) if default is not None else None

        concurrent = bound(terms.concurrent_requests, defaults.concurrent_requests)
        slots = 1 - (-alternatives // defaults.alternatives_per_slot) if defaults.alternatives_per_slot else 1
        return Bounds(
            bound(terms.requests_per_minute, defaults.requests_per_minute),
            bound(terms.tokens_per_minute, defaults.tokens_per_minute),
            concurrent,
            max(1, min(slots, concurrent.limit)) if concurrent is not None else 1,
        )

    async def close(self) -> None:
        await self._store.close()


class Admission:
    """One request's way through the limits: enter, take tokens, leave."""

    def __init__(self, store: LimitStore, limits: RateLimits, key: Key, headers: RawHeaders) -> None:
        self._store = store
        self._limits = limits
        self._key = key
        self._headers = headers
        self._visit = secrets.token_hex(12)
        self._bounds: Bounds | None = None
        self._tokens: int | None = None
        self._admitted = 0

    async def enter(self, model: str, alternatives: int = 0) -> None:
        """Count the request and take its slots; does nothing the second time. Raises RateLimited.

        `alternatives` is how many log probabilities each step has beside those of the tokens, over all choices.
        """
        if self._bounds is not None:
            return
        self._bounds = bounds = self._limits.bounds(self._key, model, alternatives)
        levels = await self._store.enter(self._visit, bounds)
        self._headers[:] = _headers(bounds, levels)
        if levels.refused is not None:
            self._bounds = None
            raise _refusal(model, bounds, levels, levels.refused)

    async def take_tokens(self, model: str, prompt_tokens: int, completion_tokens_max: int) -> None:
        """Count the worst case of the tokens. Raises RateLimited."""
        await self.enter(model)
        bounds = self._bounds
        if bounds is None or bounds.tokens is None:
            return
        if prompt_tokens > bounds.tokens.limit:
            raise RateLimited(
                f"The prompt is {prompt_tokens} tokens long, and this key may use {bounds.tokens.limit} tokens per "
                "minute in all. Shorten the prompt.",
                retry_after_seconds=60,
                headers={"x-should-retry": "false"},
            )
        self._tokens = self._admitted = min(prompt_tokens + completion_tokens_max, bounds.tokens.limit)
        levels = await self._store.take(self._visit, bounds, self._tokens)
        # `take` looks at the tokens alone; what it tells of the requests is as new.
        self._headers[:] = _headers(bounds, levels)
        if levels.refused is not None:
            wanted, self._tokens = self._tokens, None
            raise _refusal(model, bounds, levels, levels.refused, wanted)

    def used(self, tokens: int | None) -> None:
        """What the request came to, prompt and completion; None for all that was admitted. Counted when it leaves."""
        if self._tokens is not None:
            self._tokens = self._admitted if tokens is None else tokens

    def hand_over(self) -> "Admission":
        """The same place in the limits for work that outlives its answer; `release` of this one does nothing then."""
        other = Admission(self._store, self._limits, self._key, self._headers)
        other._visit, other._bounds, other._tokens = self._visit, self._bounds, self._tokens
        self._bounds = None
        return other

    def release(self) -> None:
        """Leave, on every way out. Never waits; does nothing the second time."""
        if self._bounds is not None:
            self._store.leave(self._visit, self._bounds, self._tokens)
            self._bounds = None


def _limits(bounds: Bounds, levels: Levels) -> list[tuple[Kind, Bound, Level]]:
    pairs: list[tuple[Kind, Bound | None, Level]] = [
        ("requests", bounds.requests, levels.requests),
        ("tokens", bounds.tokens, levels.tokens),
        ("concurrent", bounds.concurrent, levels.concurrent),
    ]
    return [(kind, bound, level) for kind, bound, level in pairs if bound is not None]


def _headers(bounds: Bounds, levels: Levels) -> RawHeaders:
    """OpenAI's headers, of the limits that there are. The worst case of running requests counts as used."""
    headers: RawHeaders = []
    for kind, bound, level in _limits(bounds, levels):
        if kind != "concurrent":
            name = kind.encode()
            headers += [
                (b"x-ratelimit-limit-" + name, b"%d" % bound.limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % max(0, bound.limit - level.used)),
                (b"x-ratelimit-reset-" + name, duration(level.reset_ms).encode()),
            ]
    return headers


def duration(milliseconds: int) -> str:
    """As OpenAI writes it, in whole seconds rounded up: `0s`, `1s`, `6m0s`, `1h0m0s`."""
    minutes, seconds = divmod(-(-milliseconds // SECOND_MS), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _refusal(model: str, bounds: Bounds, levels: Levels, kind: Kind, wanted: int = 1) -> RateLimited:
    bound, level = next((bound, level) for found, bound, level in _limits(bounds, levels) if found == kind)
    whose = "" if ":" not in bound.scope else f' of the model "{model}"'
    wait_ms = CONCURRENT_RETRY_MS if kind == "concurrent" else level.wait_ms
    again = f"Try again in {duration(wait_ms)}."
    match kind:
        case "requests":
            message = f"This key may make {bound.limit} requests{whose} per minute, and made {level.used}. {again}"
        case "tokens":
            message = (
                f"This key may use {bound.limit} tokens{whose} per minute; {level.used} are used or reserved, and this "
                f"request may need {wanted} more. {again} A lower max_tokens reserves less."
            )
        case "concurrent":
            message = f"This key may run {bound.limit} requests{whose} at a time, and {level.used} are running. "
            if bounds.slots > 1:
                message += (
                    f"This one counts as {bounds.slots}, for the alternatives in its log probabilities; so do others "
                    "that have them. "
                )
            message += "Try again when one of them has ended."
    return RateLimited(message, retry_after_seconds=max(1, -(-wait_ms // SECOND_MS)))

"""One request's money: what it asks for, and the handle through which it is settled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pricing.cost import NO_TOKENS, Tokens, cost
from pricing.errors import Overtaken
from pricing.key import Key
from pricing.money import Picodollars
from pricing.price import Price
from pricing.text import checked_name
from pricing.tier import Tier
from storage.errors import LedgerError, LedgerUnavailable

logger = logging.getLogger("farebox.ledger")


class Outcome(StrEnum):
    """How a request ended. All but the last two are settled by the process that ran it."""

    FINISHED = "finished"
    CLIENT_GONE = "client_gone"
    ENGINE_ERROR = "engine_error"
    INTERNAL_ERROR = "internal_error"  # a fault of the gateway's own
    SHUTDOWN = "shutdown"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"  # its process died; settled by recovery from the last checkpoint
    VOID = "void"  # nothing delivered, nothing charged

    @property
    def state(self) -> str:
        """What the ledger calls it: settled, interrupted or void."""
        return self.value if self in (Outcome.INTERRUPTED, Outcome.VOID) else "settled"


@dataclass(frozen=True, slots=True)
class ReserveRequest:
    """What a request may cost at most, and whom to charge.

    `request_id` is at most 128 characters and made by the gateway: one that is used twice is refused with
    DuplicateRequest, so pass no id that a client chose. `completion_tokens_max` is already n x max_tokens.
    `user` is the client's end-user string, if any. `started_at` is milliseconds since 1970 UTC.
    """

    request_id: str
    key: Key
    model: str
    price: Price
    prompt_tokens: int
    completion_tokens_max: int
    route: str
    started_at: int
    user: str | None = None
    tier: Tier = Tier.DEFAULT

    def __post_init__(self) -> None:
        checked_name("request id", self.request_id, 128)


@dataclass(frozen=True, slots=True)
class Final:
    """How a reservation is to end. `cost` is at most its amount."""

    request_id: str
    account_id: int
    key_id: int
    tokens: Tokens
    cost: Picodollars
    outcome: Outcome
    reason: str | None = None


class ReservationKeeper(Protocol):
    """What a reservation needs of the writer that made it."""

    @property
    def silence_max(self) -> float:
        """Seconds. See `Reservation.silence_max`."""

    def finish(self, reservation: Reservation, final: Final) -> None:
        """Queue the end of a reservation."""

    async def write_checkpoint(self, reservations: Sequence[Reservation]) -> None:
        """Store their counts now; tell those that are no longer there. Raises LedgerUnavailable."""


class Reservation:
    """A request's claim on money, from `Ledger.reserve`. Settled or voided exactly once.

    `amount` is what is reserved. `likely` tells whether the last known balance covers it: where it is False (the
    balance isn't known yet, or was too low but is stale), await `stands` before handing the request to the engine;
    else await it while the engine prefills.
    """

    def __init__(
        self, request: ReserveRequest, amount: Picodollars, *, likely: bool, keeper: ReservationKeeper
    ) -> None:
        self.request = request
        self.request_id = request.request_id
        self.amount = amount
        self.likely = likely
        self._read: Callable[[], Tokens] | None = None
        self._observed = NO_TOKENS
        self.tokens_written = NO_TOKENS
        self.reserved_at = 0  # set by the writer, with the verdict
        self.final: Final | None = None
        self._keeper = keeper
        self._overtaken: Callable[[], None] | None = None
        self._refusal: LedgerError | None = None
        self._decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def stands(self) -> None:
        """Return once the reservation is durable. No token may leave before.

        Raises InsufficientFunds, DuplicateRequest, UnknownKey or LedgerUnavailable; then nothing is reserved, and a
        `settle` or `void` writes nothing. May be awaited more than once, and cancelled.
        """
        await asyncio.shield(self._decided)
        if self._refusal is not None:
            raise self._refusal

    def when_decided(self, call: Callable[[], None]) -> None:
        """Call back once `stands` waits no more, whichever way it was decided."""
        self._decided.add_done_callback(lambda _: call())

    @property
    def silence_max(self) -> float:
        """For how many seconds its process may stand still until another one may have settled it: see `confirm`."""
        return self._keeper.silence_max

    async def confirm(self) -> None:
        """Return if no other process has taken this one for dead and settled the request. For after a standstill.

        Raises Overtaken. While the database is away nobody can tell, and what runs may go on.
        """
        call, self._overtaken = self._overtaken, None  # who asks is told by the error
        with contextlib.suppress(LedgerUnavailable):
            await self._keeper.write_checkpoint([self])
        self._overtaken = call
        if self.is_overtaken:
            raise Overtaken(self.request_id)

    def when_overtaken(self, call: Callable[[], None]) -> None:
        """Call once it is known that another process has settled the request: what comes now is nobody's charge."""
        self._overtaken = call

    @property
    def tokens(self) -> Tokens:
        """The latest counts: what the next checkpoint writes."""
        return self._observed if self._read is None else self._read()

    def observe(self, tokens: Tokens) -> None:
        """Note the latest counts. O(1), no lock, no I/O: they are written in a checkpoint at most 1 s later."""
        self._observed = tokens

    def follow(self, read: Callable[[], Tokens]) -> None:
        """Where to read the latest counts when a checkpoint is due: then a token costs the ledger nothing."""
        self._read = read

    def settle(self, tokens: Tokens, outcome: Outcome) -> Picodollars:
        """Charge for `tokens` and release the rest; give the cost. Synchronous, since a `finally` can't await.

        The cost is never more than was reserved. A second call changes nothing and gives the first call's result.
        It is written by the next group commit, and kept and retried for as long as the database is away.
        """
        if self.final is None:
            exact = cost(self.request.price, tokens)
            if exact > self.amount:
                # The caller's bug, and not the customer's bill: the limit was checked for the amount only.
                logger.error(
                    "Request %s used %s, which costs more than was reserved; it is charged the reservation",
                    self.request_id,
                    tokens,
                )
            self._finish(tokens, Picodollars(min(exact, self.amount)), outcome, None)
        assert self.final is not None
        return self.final.cost

    def void(self, reason: str) -> None:
        """Release everything: nothing was delivered, nothing is charged. After a `settle` it does nothing."""
        if self.final is None:
            self._finish(NO_TOKENS, Picodollars(0), Outcome.VOID, reason)

    def _finish(self, tokens: Tokens, charge: Picodollars, outcome: Outcome, reason: str | None) -> None:
        self.final = self._final(tokens, charge, outcome, reason)
        self._let_go()
        self._keeper.finish(self, self.final)

    def _let_go(self) -> None:
        """Of who was asked and told: the request goes with its answer, not with the garbage collector's next visit."""
        self._observed, self._read, self._overtaken = self.tokens, None, None

    def _final(self, tokens: Tokens, charge: Picodollars, outcome: Outcome, reason: str | None) -> Final:
        key = self.request.key
        return Final(self.request_id, key.account_id, key.id, tokens, charge, outcome, reason)

    def decide(self, refusal: LedgerError | None) -> None:
        """For the writer alone: the reservation is durable, or refused."""
        if not self._decided.done():
            self._refusal = refusal
            self._decided.set_result(None)

    def overtake(self) -> None:
        """For the writer alone: another process has settled it, by the checkpoint that was written last."""
        charge = min(cost(self.request.price, self.tokens_written), self.amount)
        self.final = self._final(self.tokens_written, Picodollars(charge), Outcome.INTERRUPTED, None)
        tell = self._overtaken
        self._let_go()
        if tell is not None:
            tell()

    @property
    def is_overtaken(self) -> bool:
        """Whether another process is known to have settled it."""
        return self.final is not None and self.final.outcome is Outcome.INTERRUPTED

    @property
    def is_durable(self) -> bool:
        """Whether it is decided, and was not refused."""
        return self._decided.done() and self._refusal is None

    @property
    def is_decided(self) -> bool:
        """Whether the database has answered."""
        return self._decided.done()

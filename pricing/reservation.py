"""One request's money: what it asks for, and the handle through which it is settled."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pricing.cost import Tokens
from pricing.keys import Key
from pricing.money import Picodollars
from pricing.price import Price


class Outcome(StrEnum):
    """How a request ended. All but the last two are settled by the process that ran it."""

    FINISHED = "finished"
    CLIENT_GONE = "client_gone"
    ENGINE_ERROR = "engine_error"
    SHUTDOWN = "shutdown"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"  # its process died; settled by recovery from the last checkpoint
    VOID = "void"  # nothing delivered, nothing charged


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


class Reservation:
    """A request's claim on money, from `Ledger.reserve`. Settled or voided exactly once."""

    request_id: str
    amount: Picodollars
    likely: bool
    """Whether the last known balance covers this. Where it is False (the balance isn't known yet, or was too low but is
    stale), await `stands` before handing the request to the engine; else await it beside the engine's prefill."""

    async def stands(self) -> None:
        """Return once the reservation is durable. No token may leave before.

        Raises InsufficientFunds, DuplicateRequest, UnknownKey or LedgerUnavailable; then nothing is reserved, and a
        later `settle` or `void` charges nothing. May be awaited more than once, and cancelled.
        """
        raise NotImplementedError

    def observe(self, tokens: Tokens) -> None:
        """Note the latest counts. O(1), no lock, no I/O: they are written in a checkpoint at most 1 s later."""
        raise NotImplementedError

    def settle(self, tokens: Tokens, outcome: Outcome) -> Picodollars:
        """Charge for `tokens` and release the rest; give the cost. Synchronous, since a `finally` can't await.

        The cost is never more than was reserved. A second call changes nothing and gives the first call's result.
        It is written by the next group commit, and kept and retried for as long as the database is away.
        """
        raise NotImplementedError

    def void(self, reason: str) -> None:
        """Release everything: nothing was delivered, nothing is charged. After a `settle` it does nothing."""
        raise NotImplementedError

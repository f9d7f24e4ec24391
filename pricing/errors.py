"""Everything that this package raises on purpose, beside what `storage.errors` draws.

    LedgerError (storage)
      InsufficientFunds     the reservation does not fit into what is left            -> 402
      Overtaken             another process took this one for dead and settled it     -> 503
      DuplicateRequest      this request id was used already                          -> 409
      DuplicateName         an account, key or secret of this name exists             -> 409
      UnknownAccount        no account has this id or name                            -> 404
      UnknownKey            no key has this id or prefix                              -> 404
      InvalidAmount         a sum of money, price or token count that can't be        -> 422
      MissingPackage        an optional package is needed for this                    -> say which

Messages are sentences that say what to do next. None holds a secret or a database password.
"""

from __future__ import annotations

from typing import Literal

from pricing.balance import Limit, limit_text
from pricing.clock import iso_time
from pricing.money import Picodollars, format_usd
from storage.errors import LedgerError

Scope = Literal["account", "key"]


class InsufficientFunds(LedgerError):
    """The worst case of a request is more than what its account or key has left.

    `needed` and `left` are picodollars; `scope` says whose limit it was, `limit` which one (None: the ledger holds no
    more), `opens_at` when its next period begins, in milliseconds since 1970 UTC (None: never, or too small for this).
    """

    def __init__(
        self,
        needed: Picodollars,
        left: Picodollars,
        scope: Scope,
        limit: Limit | None = None,
        opens_at: int | None = None,
    ) -> None:
        self.needed = needed
        self.left = left
        self.scope = scope
        self.limit = limit
        self.opens_at = opens_at
        whose = "" if limit is None else f" of its limit of {limit_text(limit)}"
        again = "" if opens_at is None else f", which opens again at {iso_time(opens_at)}"
        super().__init__(
            f"This request may cost up to ${format_usd(needed)}, and the {scope} has ${format_usd(left)} left"
            f"{whose}{again}. A lower max_tokens may fit; otherwise add credit or raise the limit."
        )


class Overtaken(LedgerError):
    """This process was suspended for longer than its lease, and another one has settled the request meanwhile."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"The request {request_id!r} was settled as interrupted by another process. Send it again.")


class DuplicateRequest(LedgerError):
    """A request with this id is running or was settled within the last days."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        super().__init__(f"A request with the id {request_id!r} exists already; send another id or none.")


class DuplicateName(LedgerError):
    """The name (or the secret) is taken."""


class UnknownAccount(LedgerError):
    """No such account."""


class UnknownKey(LedgerError):
    """No such key."""


class MissingPackage(LedgerError):
    """An optional package is not installed; the sentence says which."""

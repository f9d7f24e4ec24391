"""Everything that this package raises on purpose.

    PricingError
      InsufficientFunds     the reservation does not fit into what is left            -> 402
      LedgerUnavailable     the database can't be reached or can't be written         -> 503, Retry-After
        RowsLocked          another process holds the rows for too long               -> as above
      Overtaken             another process took this one for dead and settled it     -> 503
      SchemaMismatch        the database's schema is not the one this code needs      -> refuse to start
      DuplicateRequest      this request id was used already                          -> 409
      DuplicateName         an account, key or secret of this name exists             -> 409
      UnknownAccount        no account has this id or name                            -> 404
      UnknownKey            no key has this id or prefix                              -> 404
      InvalidAmount         a sum of money, price or token count that can't be        -> 422
      InvalidSetting        any other value of an account or key that can't be        -> 422
      MissingPackage        an optional package is needed for this                    -> say which

Messages are sentences that say what to do next. None holds a secret or a database password.
"""

from __future__ import annotations

from typing import Literal

from pricing.money import InvalidAmount, Picodollars, PricingError, format_usd

__all__ = [
    "DuplicateName",
    "DuplicateRequest",
    "InsufficientFunds",
    "InvalidAmount",
    "InvalidSetting",
    "LedgerUnavailable",
    "MissingPackage",
    "Overtaken",
    "PricingError",
    "RowsLocked",
    "SchemaMismatch",
    "UnknownAccount",
    "UnknownKey",
]

Scope = Literal["account", "key"]


class InsufficientFunds(PricingError):
    """The worst case of a request is more than what its account or key has left.

    `needed` and `left` are picodollars; `scope` says whose limit it was.
    """

    def __init__(self, needed: Picodollars, left: Picodollars, scope: Scope) -> None:
        self.needed = needed
        self.left = left
        self.scope = scope
        super().__init__(
            f"This request may cost up to ${format_usd(needed)}, and the {scope} has ${format_usd(left)} left. "
            "A lower max_tokens may fit; otherwise add credit or raise the limit."
        )


class LedgerUnavailable(PricingError):
    """The database is away, full or read-only. `retry_after_s` is whole seconds, for a Retry-After header."""

    def __init__(self, reason: str, retry_after_s: int = 2) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"The ledger is not available ({reason}). Try again in {retry_after_s} s.")


class RowsLocked(LedgerUnavailable):
    """Another process holds rows (or a table) that were needed, and nothing was done; the database itself works."""

    def __init__(self) -> None:
        super().__init__("another process holds the rows")


class Overtaken(PricingError):
    """This process stood still for longer than its lease, and another one has settled the request meanwhile."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"The request {request_id!r} was settled as interrupted by another process. Send it again.")


class SchemaMismatch(PricingError):
    """The schema is older than this code needs, or newer than it can work with; the sentence says what to run."""


class DuplicateRequest(PricingError):
    """A request with this id is running or was settled within the last days."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        super().__init__(f"A request with the id {request_id!r} exists already; send another id or none.")


class DuplicateName(PricingError):
    """The name (or the secret) is taken."""


class UnknownAccount(PricingError):
    """No such account."""


class UnknownKey(PricingError):
    """No such key."""


class InvalidSetting(PricingError):
    """A value of an account or a key is out of its range."""


class MissingPackage(PricingError):
    """An optional package is not installed; the sentence says which."""

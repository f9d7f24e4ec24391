"""What the database's side raises on purpose.

    LedgerError
      LedgerUnavailable     the database can't be reached or can't be written         -> 503, Retry-After
        RowsLocked          another process holds the rows for too long               -> as above
      SchemaMismatch        the database's schema is not the one this code needs      -> refuse to start
      InvalidSetting        a value that can't be, such as a database's URL           -> 422
      ...                   and what is about money: `pricing.errors`

Messages are sentences that say what to do next. None holds a secret or a database password.
"""

from __future__ import annotations


class LedgerError(Exception):
    """Whatever `storage` and `pricing` raise on purpose."""


class LedgerUnavailable(LedgerError):
    """The database is away, full or read-only. `retry_after_s` is whole seconds, for a Retry-After header."""

    def __init__(self, reason: str, retry_after_s: int = 2) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"The ledger is not available ({reason}). Try again in {retry_after_s} s.")


class RowsLocked(LedgerUnavailable):
    """Another process holds rows (or a table) that were needed, and nothing was done; the database itself works."""

    def __init__(self) -> None:
        super().__init__("another process holds the rows")


class SchemaMismatch(LedgerError):
    """The schema is older than this code needs, or newer than it can work with; the sentence says what to run."""


class InvalidSetting(LedgerError):
    """A value of an account or a key is out of its range."""

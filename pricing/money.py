"""Money as integer picodollars: 1e-12 USD, the unit in which every price times every token count is exact.

A price has at most six decimals per million tokens, so one token costs a whole number of picodollars. A BIGINT holds
9.2 million USD. The one float of the package is made by `usd_number`, for writing JSON.
"""

from __future__ import annotations

import re
from typing import Final, NewType

from storage.errors import LedgerError
from storage.text import shorten

Picodollars = NewType("Picodollars", int)

PICODOLLARS_PER_USD: Final = 10**12
PICODOLLARS_MAX: Final = Picodollars(2**63 - 1)  # what a BIGINT holds

_DECIMALS_MAX: Final = 12
_AMOUNT: Final = re.compile(r"(-?)([0-9]{1,9})(?:\.([0-9]{1,12}))?", re.ASCII)


class InvalidAmount(LedgerError, ValueError):
    """A sum of money, a price or a token count that can't be."""


def parse_usd(text: str) -> Picodollars:
    """Read a decimal amount of US dollars such as "12", "0.13" or "-3.5", exactly.

    Raises InvalidAmount for anything else: a currency sign, an exponent, spaces, thousands separators, more than
    twelve decimals, or more than 9.2 million USD.
    """
    found = _AMOUNT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidAmount(
            f"{shorten(text)} is not an amount of US dollars. Write a plain decimal number with at most "
            f"{_DECIMALS_MAX} decimals, such as 12.50."
        )
    sign, whole, decimals = found.groups()
    amount = int(whole) * PICODOLLARS_PER_USD + int((decimals or "").ljust(_DECIMALS_MAX, "0"))
    if amount > PICODOLLARS_MAX:
        raise InvalidAmount(
            f"{shorten(text)} is more than the ledger holds: at most {format_usd(PICODOLLARS_MAX)} USD."
        )
    return Picodollars(-amount if sign else amount)


def format_usd(amount: Picodollars) -> str:
    """Write an amount as US dollars, exactly, with no exponent and at least two decimals: "0.00035493", "5.00"."""
    whole, rest = divmod(abs(amount), PICODOLLARS_PER_USD)
    decimals = f"{rest:012d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}{whole}.{decimals}"


def usd_number(amount: Picodollars) -> float:
    """The nearest float, only for a number in JSON (`estimated_cost`). Never calculate with it."""
    return amount / PICODOLLARS_PER_USD

"""The last known balances, for refusing at once those who have no money, and never anybody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pricing.balance import LimitKind
from pricing.errors import InsufficientFunds, Scope
from pricing.money import PICODOLLARS_MAX, Picodollars
from pricing.standing import Standing

_SEEN_MAX: Final = 20_000


@dataclass(slots=True)
class _Seen:
    """The last committed state of a row, and what this process itself holds of it: its standing reservations, and the
    cost of its settlements that are not written yet."""

    standing: Standing
    at: int
    held: int = 0


class KnownBalances:
    """What this process knows of accounts and keys without asking.

    Within a period spending only grows, and this process's own reservations hold now. So where what was spent, what we
    hold and the new amount exceed the limit, a refusal is right, whatever other processes do; their reservations are
    left out of it, since they may be released at any time. Only a raised limit can make it wrong: what is known is
    therefore used for `age_max` milliseconds, and after that the database decides.
    """

    def __init__(self, age_max: int) -> None:
        self._age_max = age_max
        self._seen: dict[tuple[Scope, int], _Seen] = {}

    def require(self, account_id: int, key_id: int, amount: Picodollars, now: int) -> bool:
        """Raise InsufficientFunds where it is certain; else tell whether the amount probably fits."""
        return all([self._fits("key", key_id, amount, now), self._fits("account", account_id, amount, now)])

    def _fits(self, scope: Scope, row_id: int, amount: Picodollars, now: int) -> bool:
        seen = self._seen.get((scope, row_id))
        if seen is None:
            return False
        standing = seen.standing
        if standing.limit.kind is LimitKind.NONE:
            return True
        in_period = standing.limit.period_start(now) <= standing.period_start
        left = standing.limit.amount - (standing.spent + seen.held if in_period else 0)
        if amount <= left:
            return True
        # Beyond the limit as such, or within the period: certain as long as the limit is what we know.
        if now - seen.at <= self._age_max and (in_period or amount > standing.limit.amount):
            raise InsufficientFunds(amount, Picodollars(max(0, min(left, PICODOLLARS_MAX))), scope)
        return False

    def learn(self, accounts: dict[int, Standing], keys: dict[int, Standing], now: int) -> None:
        """Take over the rows as a commit left them."""
        if len(self._seen) > _SEEN_MAX:
            self._seen = {place: seen for place, seen in self._seen.items() if seen.held}
        scoped: list[tuple[Scope, dict[int, Standing]]] = [("account", accounts), ("key", keys)]
        for scope, standings in scoped:
            for row_id, standing in standings.items():
                seen = self._seen.get((scope, row_id))
                if seen is None:
                    self._seen[scope, row_id] = _Seen(standing, now)
                    continue
                if seen.standing.period_start != standing.period_start:
                    seen.held = 0  # all of it was of another period; `hold` ignores what is left of that
                seen.standing, seen.at = standing, now

    def hold(self, account_id: int, key_id: int, amount: int, reserved_at: int) -> None:
        """Hold more (or, negative, less) of an account and its key, for a reservation charged at `reserved_at`."""
        places: tuple[tuple[Scope, int], ...] = (("account", account_id), ("key", key_id))
        for place in places:
            seen = self._seen.get(place)
            if seen is not None and reserved_at >= seen.standing.period_start:
                # Too little held is harmless (the database decides); it can follow a change of the limit's kind.
                seen.held = max(0, seen.held + amount)

"""The last known balances, for refusing at once those who have no money, and never anybody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pricing.errors import Scope
from pricing.money import Picodollars
from pricing.standing import Standing, Window, refusal

_SEEN_MAX: Final = 20_000


@dataclass(slots=True)
class _Seen:
    """The last committed state of a row, and what this process itself holds in each of its limits: its standing
    reservations, and the cost of its settlements that are not written yet."""

    standing: Standing
    at: int
    held: list[int]


class KnownBalances:
    """What this process knows of accounts and keys without asking.

    Within a period spending only grows, and this process's own reservations hold now. So where what was spent, what we
    hold and the new amount exceed a limit, a refusal is right, whatever other processes do; their reservations are
    left out of it, since they may be released at any time. Only a raised limit can make it wrong: what is known is
    therefore used for `age_max` milliseconds, and after that the database decides.
    """

    def __init__(self, age_max: int) -> None:
        self._age_max = age_max
        self._seen: dict[tuple[Scope, int], _Seen] = {}

    def require(self, account_id: int, key_id: int, amount: Picodollars, model: str, now: int) -> bool:
        """Raise InsufficientFunds where it is certain; else tell whether the amount probably fits."""
        key_fits = self._fits("key", key_id, amount, model, now)
        return self._fits("account", account_id, amount, model, now) and key_fits

    def _fits(self, scope: Scope, row_id: int, amount: Picodollars, model: str, now: int) -> bool:
        seen = self._seen.get((scope, row_id))
        if seen is None:
            return False
        fits, full = True, []
        for window, held in zip(seen.standing.windows, seen.held, strict=True):
            limit = window.limit
            if not limit.applies(model):
                continue
            in_period = limit.period_start(now) <= window.start
            left = limit.amount - (window.spent + held if in_period else 0)
            if amount <= left:
                continue
            fits = False
            # Beyond the limit as such, or within the period: certain as long as the limit is what we know.
            if now - seen.at <= self._age_max and (in_period or amount > limit.amount):
                full.append((window, left))
        if full:
            raise refusal(full, amount, scope)
        return fits

    def learn(self, accounts: dict[int, Standing], keys: dict[int, Standing], now: int) -> None:
        """Take over the rows as a commit left them."""
        if len(self._seen) > _SEEN_MAX:
            self._seen = {place: seen for place, seen in self._seen.items() if any(seen.held)}
        scoped: list[tuple[Scope, dict[int, Standing]]] = [("account", accounts), ("key", keys)]
        for scope, standings in scoped:
            for row_id, standing in standings.items():
                seen = self._seen.get((scope, row_id))
                if seen is None:
                    self._seen[scope, row_id] = _Seen(standing, now, [0] * len(standing.windows))
                    continue
                # What was held in another period is gone; `hold` ignores what is left of that.
                known = {_period(one): held for one, held in zip(seen.standing.windows, seen.held, strict=True)}
                seen.held = [known.get(_period(window), 0) for window in standing.windows]
                seen.standing, seen.at = standing, now

    def hold(self, account_id: int, key_id: int, amount: int, model: str, reserved_at: int) -> None:
        """Hold more (or, negative, less) of an account and its key, for a reservation charged at `reserved_at`."""
        places: tuple[tuple[Scope, int], ...] = (("account", account_id), ("key", key_id))
        for place in places:
            if (seen := self._seen.get(place)) is not None:
                for number, window in enumerate(seen.standing.windows):
                    if window.counts(model, reserved_at):
                        # Too little held is harmless (the database decides); it can follow a change of the limits.
                        seen.held[number] = max(0, seen.held[number] + amount)


def _period(window: Window) -> tuple[object, ...]:
    return window.limit.identity, window.start

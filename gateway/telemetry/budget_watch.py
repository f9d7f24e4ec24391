"""How many accounts are about to run out of money: for an alert, without a label per account."""

import asyncio
import contextlib
import logging

from gateway.telemetry.metrics import Readings
from pricing.accounts import Accounts
from storage.database import Database
from storage.errors import LedgerUnavailable

log = logging.getLogger("farebox.budgets")

INTERVAL_SECONDS = 30.0
PERCENTS = (90, 100)


class BudgetWatch:
    """Counts now and then. While the database is away the last counts stay."""

    def __init__(self, database: Database) -> None:
        self._accounts = Accounts(database)
        self._counts: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, database: Database) -> "BudgetWatch":
        """Count once, then every 30 seconds. Raises LedgerUnavailable."""
        watch = cls(database)
        await watch.count()
        watch._task = asyncio.create_task(watch._keep_counting(), name="budget watch")
        return watch

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def count(self) -> None:
        """Raises LedgerUnavailable."""
        self._counts = {percent: await self._accounts.count_spent(percent) for percent in PERCENTS}

    def readings(self) -> Readings:
        """By share: "0.9", "1"."""
        return {(f"{percent / 100:g}",): count for percent, count in self._counts.items()}

    async def _keep_counting(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self.count()
            except LedgerUnavailable as error:
                log.debug("accounts are not counted now: %s", error)

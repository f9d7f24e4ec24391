"""The batches of all accounts, and this process's part of the work on them."""

import asyncio
import contextlib
import json
import logging
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gateway.batches.batch import Batch, Dialect, Status, Tally
from gateway.batches.checker import Conversion, Report
from gateway.batches.checking import Checking
from gateway.batches.finishing import Finishing
from gateway.batches.store import BatchStore
from gateway.batches.work import LineRunner, Work
from gateway.errors import RateLimited
from gateway.files.files import Files
from gateway.settings import Settings
from gateway.webhooks.delivery import Webhooks
from gateway.webhooks.store import WebhookStore
from pricing.keys import Key
from storage.database import Database
from storage.errors import LedgerUnavailable

log = logging.getLogger("farebox.batches")

POLL_SECONDS: Final = 1.0  # how soon a batch is seen that another process has made, or left behind
COUNT_SECONDS: Final = 15.0  # how often they are counted for the metrics
CLOSE_SECONDS: Final = 10.0
LATE_FROM: Final = 0.1  # of a batch's window, before its pace says anything


@dataclass(frozen=True, slots=True)
class Counts:
    """Of all batches that haven't ended: how many by status, their lines to come, and how many will miss their window
    at their pace."""

    by_status: Mapping[Status, int]
    lines_left: int = 0
    late: int = 0


class Batches:
    """All methods belong to one event loop, and raise LedgerUnavailable while the database is away."""

    def __init__(self, database: Database, files: Files, webhooks: Webhooks, settings: Settings, owner: str) -> None:
        self.store = BatchStore(database)
        self.counts = Counts({})
        self._files = files
        self._settings = settings
        self._owner = owner
        self._checking = Checking(settings.batch_check_seconds_max, settings.batch_check_memory_bytes_max)
        self._finishing = Finishing(database, self.store, files, WebhookStore(database), webhooks.wake)
        self._works: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, runner: LineRunner) -> None:
        """Begin to work on what there is."""
        self._tasks = [
            asyncio.create_task(self._work_on(runner), name="batches"),
            asyncio.create_task(self._count(), name="batch counts"),
        ]

    async def close(self) -> None:
        """Stop, and let others go on at once."""
        tasks = [*self._tasks, *self._works.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)

    async def create(
        self,
        key: Key,
        dialect: Dialect,
        endpoint: str,
        input_file_id: str,
        *,
        metadata: Mapping[str, str] | None = None,
        webhook: str | None = None,
        output_seconds: int | None = None,
        total: int | None = None,
    ) -> Batch:
        """A new batch of a file, which is still to be checked unless the number of its lines is known. Raises
        RateLimited where the account has too many."""
        most = self._settings.batch_open_max
        if await self.store.open_of(key.account_id) >= most:
            raise RateLimited(
                f"Your account has {most} batches that haven't ended, as many as are allowed. Wait for one of them.",
                retry_after_seconds=60,
            )
        now = self.store.now()
        prefix = "batch" if dialect == "openai" else "msgbatch"
        batch = Batch(
            id=f"{prefix}_{secrets.token_hex(12)}",
            account_id=key.account_id,
            key_id=key.id,
            dialect=dialect,
            endpoint=endpoint,
            model=None,
            input_file_id=input_file_id,
            output_file_id=None,
            error_file_id=None,
            status=Status.VALIDATING if total is None else Status.IN_PROGRESS,
            metadata=None if metadata is None else json.dumps(metadata),
            webhook=webhook,
            errors=None,
            output_seconds=output_seconds,
            total=total or 0,
            unreached=0,
            tally=Tally(),
            created_at=now,
            expires_at=now + int(self._settings.batch_hours * 3_600_000),
            in_progress_at=None if total is None else now,
        )
        await self.store.add(batch)
        self._wake.set()
        return batch

    async def create_from_messages(self, key: Key, path: Path) -> Batch:
        """A new batch of Anthropic's document in this file. Raises GatewayError for what is wrong with it."""
        settings = self._settings
        async with self._files.incoming.file() as lines:
            job = Conversion(path, lines, settings.batch_lines_max, settings.body_bytes_max)
            report: Report = await self._checking.check(job)
            size = (await asyncio.to_thread(lines.stat)).st_size
            kept = int(settings.batch_hours * 3600) * 2
            file = self._files.new(key.account_id, key.id, "requests.jsonl", kept)
            await self._files.add(replace(file, bytes=size), lines)
        return await self.create(key, "anthropic", "/v1/messages", file.id, total=report.total)

    async def cancel(self, batch: Batch) -> Batch:
        """Begin no more of its lines. Those that run end as they do."""
        await self.store.cancel(batch.id, batch.account_id)
        return await self.store.get(batch.id) or batch

    @property
    def working_on(self) -> int:
        return len(self._works)

    async def _work_on(self, runner: LineRunner) -> None:
        while True:
            self._wake.clear()
            try:
                await self._begin(runner)
            except LedgerUnavailable as error:
                log.warning("batches wait: %s", error)
            except Exception:
                log.exception("taking up batches failed; it goes on")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()

    async def _begin(self, runner: LineRunner) -> None:
        """Take up what nobody works on, as much as is allowed at a time."""
        count = self._settings.batch_at_once_max - len(self._works)
        if count <= 0 or not runner.ready:
            return
        lease_ms = int(self._settings.lease_seconds * 1000)
        for batch_id in await self.store.free(count):
            if batch_id not in self._works and await self.store.claim(batch_id, self._owner, lease_ms):
                work = asyncio.create_task(self._work(batch_id, runner, lease_ms), name=f"work on {batch_id}")
                self._works[batch_id] = work

    async def _work(self, batch_id: str, runner: LineRunner, lease_ms: int) -> None:
        store, owner = self.store, self._owner
        try:
            batch = await store.get(batch_id)
            if batch is not None:
                work = Work(batch, owner, store, self._files, runner, self._checking, self._finishing, lease_ms)
                await work.run()
        except LedgerUnavailable as error:
            log.warning("%s waits: %s", batch_id, error)
        except Exception:
            log.exception("the work on %s failed; it is taken up again", batch_id)
            await asyncio.sleep(POLL_SECONDS)
        finally:
            del self._works[batch_id]
            self._wake.set()
            with contextlib.suppress(LedgerUnavailable):
                await store.release(batch_id, owner)

    async def _count(self) -> None:
        while True:
            try:
                self.counts = self._counted(await self.store.open_batches())
            except LedgerUnavailable as error:
                log.warning("batches can't be counted: %s", error)
            except Exception:
                log.exception("counting batches failed; it goes on")
            await asyncio.sleep(COUNT_SECONDS)

    def _counted(self, batches: Sequence[Batch]) -> Counts:
        left = sum(batch.total - batch.tally.completed - batch.tally.failed for batch in batches)
        late = sum(is_late(batch, self.store.now()) for batch in batches)
        return Counts(Counter(batch.status for batch in batches), left, late)


def is_late(batch: Batch, now: int) -> bool:
    """Whether it will miss its window if it goes on as it did."""
    begun = batch.in_progress_at
    if batch.status is not Status.IN_PROGRESS or begun is None:
        return False
    window, spent = batch.expires_at - batch.created_at, now - begun
    if spent < LATE_FROM * window:
        return False
    done = batch.tally.completed + batch.tally.failed
    return done == 0 or begun + spent * batch.total / done > batch.expires_at

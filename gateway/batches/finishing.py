"""The end of a batch: its result files, and the word to its client, in one transaction with its last status.

The files' names come from the batch's: who finishes a batch that another has begun to finish writes the same files.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from gateway.batches.batch import Batch, Result, Status, Tally
from gateway.batches.checker import lines_of
from gateway.batches.shapes import error_line, result_line, unreached_line
from gateway.batches.store import SUCCESS_END, BatchStore
from gateway.files.files import File, Files, add_row
from gateway.webhooks.store import WebhookStore
from storage.database import Database

PAGE = 200

ENDED_AT = {
    Status.COMPLETED: "completed_at",
    Status.FAILED: "failed_at",
    Status.EXPIRED: "expired_at",
    Status.CANCELLED: "cancelled_at",
}


@dataclass(slots=True)
class _Written:
    """The two files of results, while they are written; Anthropic's batches have one."""

    output: IO[bytes]
    errors: IO[bytes]
    completed: int = 0
    failed: int = 0


class Finishing:
    """For batches that this process works on."""

    def __init__(
        self, database: Database, store: BatchStore, files: Files, webhooks: WebhookStore, told: Callable[[], None]
    ) -> None:
        self._database = database
        self._store = store
        self._files = files
        self._webhooks = webhooks
        self._told = told

    async def finish(self, batch: Batch, owner: str) -> None:
        """Write the results, those of lines that weren't reached too, and end the batch."""
        tally = await self._store.tally(batch.id)
        status = _last_status(batch)
        async with self._files.incoming.file() as output, self._files.incoming.file() as errors:
            written = await self._write(batch, status, output, errors)
            good = await self._file(batch, "output", output) if written.completed else None
            bad = await self._file(batch, "errors", errors) if written.failed else None
        values = {
            "output_file_id": good and good.id,
            "error_file_id": bad and bad.id,
            "completed": tally.completed,
            "failed": batch.total - tally.completed,
            "unreached": batch.total - tally.completed - tally.failed,
            **{
                name: getattr(tally, name) for name in Tally.__dataclass_fields__ if name not in ("completed", "failed")
            },
        }
        if await self.end(batch, owner, status, values, [file for file in (good, bad) if file is not None]):
            await self._store.forget_results(batch.id)
            if batch.dialect == "anthropic":
                await self._files.delete(batch.input_file_id)

    async def end(
        self, batch: Batch, owner: str, status: Status, values: Mapping[str, object], made: list[File] | None = None
    ) -> bool:
        """It has ended: its files are there, and its client will be called. False where it is another's."""
        now = self._store.now()
        moment = {} if ENDED_AT[status] in values else {ENDED_AT[status]: now}
        async with self._database.write() as connection:
            if not await self._store.end(connection, batch.id, owner, status, {**values, **moment}):
                return False
            for file in made or ():
                await add_row(connection, file)
            if batch.webhook is not None:
                body = json.dumps(_event(batch, status, now))
                await self._webhooks.enqueue(connection, batch.id, batch.key_id, batch.webhook, body)
        self._told()
        return True

    async def _write(self, batch: Batch, status: Status, output: Path, errors: Path) -> _Written:
        after, seen = 0, set[int]()
        with output.open("wb") as good, errors.open("wb") as bad:
            written = _Written(good, good if batch.dialect == "anthropic" else bad)
            while page := await self._store.results(batch.id, after, PAGE):
                await asyncio.to_thread(_write_page, batch, page, written)
                seen.update(result.line for result in page)
                after = page[-1].line
            if len(seen) < batch.total:
                async with self._input(batch) as path:
                    if path is not None:
                        await asyncio.to_thread(_write_rest, batch, status, path, seen, written)
        if batch.dialect == "anthropic":
            written.completed += written.failed
            written.failed = 0
        return written

    @asynccontextmanager
    async def _input(self, batch: Batch) -> AsyncIterator[Path | None]:
        try:
            async with self._files.local(batch.input_file_id) as path:
                yield path
        except FileNotFoundError:
            yield None

    async def _file(self, batch: Batch, name: str, path: Path) -> File:
        new, filename = self._files.new, f"{batch.id}_{name}.jsonl"
        file = new(batch.account_id, batch.key_id, filename, batch.output_seconds, "batch_output")
        size = (await asyncio.to_thread(path.stat)).st_size
        file = replace(file, id=f"file-{batch.id.partition('_')[2]}-{name}", bytes=size)
        await self._files.put(file.id, path)
        return file


def _last_status(batch: Batch) -> Status:
    match batch.status:
        case Status.CANCELLING:
            return Status.CANCELLED
        case Status.FINALIZING:
            return Status.COMPLETED
        case _:
            return Status.EXPIRED  # it was stopped by the end of its window


def _write_page(batch: Batch, page: Sequence[Result], written: _Written) -> None:
    for result in page:
        if result.status < SUCCESS_END:
            written.output.write(result_line(batch, result))
            written.completed += 1
        else:
            written.errors.write(error_line(batch, result))
            written.failed += 1


def _write_rest(batch: Batch, status: Status, path: Path, seen: set[int], written: _Written) -> None:
    for number, custom_id, _ in lines_of(path):
        if number not in seen:
            written.errors.write(unreached_line(batch, number, custom_id, status))
            written.failed += 1


def _event(batch: Batch, status: Status, now: int) -> dict[str, object]:
    """As OpenAI's webhooks have it."""
    return {
        "id": f"evt_{secrets.token_hex(12)}",
        "object": "event",
        "created_at": now // 1000,
        "type": f"batch.{status.value}",
        "data": {"id": batch.id},
    }

"""Files: what is known of them in the database, their bytes in `gateway.files.blobs`. An account sees its own only.

The bytes are there before the row, and go after it: a row is the promise that they can be read.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import Row, and_, delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.files.blobs import Blobs, FolderBlobs
from gateway.files.incoming import Incoming
from gateway.files.s3 import S3Blobs
from gateway.files.table import files
from gateway.settings import Settings
from pricing.clock import MS_PER_DAY, Clock, system_clock
from storage.database import Database
from storage.errors import LedgerUnavailable

log = logging.getLogger("farebox.files")

Purpose = Literal["batch", "batch_output"]
Order = Literal["asc", "desc"]
PURGE_SECONDS: Final = 60.0
PURGE_MAX: Final = 100  # files at a time
STALE_SECONDS: Final = 24 * 3600.0  # nothing is on its way for as long


@dataclass(frozen=True, slots=True)
class File:
    """What is known of one. Times are milliseconds since 1970 UTC."""

    id: str
    account_id: int
    key_id: int
    filename: str
    purpose: Purpose
    bytes: int
    created_at: int
    expires_at: int | None


class Files:
    """All files. What reads or writes rows raises LedgerUnavailable while the database is away."""

    def __init__(
        self, database: Database, blobs: Blobs, incoming: Incoming, *, keep_ms: int, clock: Clock = system_clock
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._keep_ms = keep_ms
        self.incoming = incoming
        self.now = clock
        self._purging: asyncio.Task[None] | None = None

    @classmethod
    def open(cls, database: Database, settings: Settings) -> "Files":
        """Start removing what has expired. Raises SettingsError."""
        incoming = Incoming(settings.files_dir / "incoming")
        blobs = FolderBlobs(settings.files_dir) if settings.files_url is None else S3Blobs(settings.files_url, incoming)
        opened = cls(database, blobs, incoming, keep_ms=int(settings.file_days * MS_PER_DAY))
        opened._purging = asyncio.create_task(opened._purge_regularly(), name="files")
        return opened

    async def close(self) -> None:
        if self._purging is not None:
            self._purging.cancel()
            await asyncio.gather(self._purging, return_exceptions=True)

    def new(
        self, account_id: int, key_id: int, filename: str, seconds: int | None, purpose: Purpose = "batch"
    ) -> "File":
        """A file that is to be kept for this long; it isn't there until it is added."""
        now = self.now()
        kept_ms = self._keep_ms if seconds is None else seconds * 1000
        file_id = f"file-{secrets.token_hex(12)}"
        return File(file_id, account_id, key_id, filename, purpose, 0, now, now + kept_ms)

    async def add(self, file: File, source: Path) -> None:
        """Keep it: first its bytes, then that they are there."""
        await self.put(file.id, source)
        async with self._database.write() as connection:
            await add_row(connection, file)

    async def put(self, file_id: str, source: Path) -> None:
        """The bytes alone."""
        await self._blobs.put(file_id, source)

    async def get(self, file_id: str, account_id: int) -> File | None:
        query = select(files).where(files.c.id == file_id, files.c.account_id == account_id, self._current())
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _file(row)

    async def list(
        self, account_id: int, *, after: File | None, count: int, order: Order, purpose: str | None
    ) -> Sequence[File]:
        """By when they were made, from the one after `after`."""
        query = select(files).where(files.c.account_id == account_id, self._current())
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        if after is not None:
            query = query.where(beyond(files.c.created_at, files.c.id, after.created_at, after.id, order))
        columns = (files.c.created_at, files.c.id)
        ordered = query.order_by(*(column.asc() if order == "asc" else column.desc() for column in columns))
        async with self._database.read() as connection:
            return [_file(row) for row in await connection.execute(ordered.limit(count))]

    async def bytes_of(self, account_id: int) -> int:
        """How much an account has."""
        query = select(func.coalesce(func.sum(files.c.bytes), 0)).where(files.c.account_id == account_id)
        async with self._database.read() as connection:
            return int(await connection.scalar(query) or 0)

    def read(self, file_id: str) -> AsyncIterator[bytes]:
        return self._blobs.read(file_id)

    def local(self, file_id: str) -> AbstractAsyncContextManager[Path]:
        """The file on this machine, while it is used. Raises FileNotFoundError."""
        return self._blobs.local(file_id)

    async def delete(self, file_id: str) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(files).where(files.c.id == file_id))
        await self._blobs.delete(file_id)

    async def purge(self) -> int:
        """Remove some of what has expired; give their number."""
        query = select(files.c.id).where(files.c.expires_at <= self.now()).limit(PURGE_MAX)
        async with self._database.read() as connection:
            expired = list(await connection.scalars(query))
        for file_id in expired:
            await self.delete(file_id)
        return len(expired)

    def _current(self) -> Any:
        return or_(files.c.expires_at.is_(None), files.c.expires_at > self.now())

    async def _purge_regularly(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.incoming.tidy, time.time() - STALE_SECONDS)
                while await self.purge() == PURGE_MAX:
                    pass
            except LedgerUnavailable as error:
                log.warning("expired files wait: %s", error)
            except Exception:
                log.exception("removing expired files failed; it is tried again")
            await asyncio.sleep(PURGE_SECONDS)


async def add_row(connection: AsyncConnection, file: File) -> None:
    values = {name: getattr(file, name) for name in File.__dataclass_fields__}
    await connection.execute(insert(files).values(values))


def beyond(created: Any, row_id: Any, after: int, after_id: str, order: Order) -> Any:
    """Later in the list than the row that was made then and has this id."""
    further: Callable[[Any, object], Any] = (lambda a, b: a > b) if order == "asc" else (lambda a, b: a < b)
    return or_(further(created, after), and_(created == after, further(row_id, after_id)))


def _file(row: Row[Any]) -> File:
    return File(**row._mapping)

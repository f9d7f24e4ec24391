"""Where the bytes of files are: a folder, or (`gateway.files.s3`) an S3-compatible store."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

PIECE_BYTES: Final = 2**18


class Blobs(Protocol):
    """Bytes by name. A name is one of ours: letters, digits, `-` and `_`. All but `read` may be repeated."""

    async def put(self, name: str, source: Path) -> None:
        """Keep a file, whole or not at all; `source` may be gone then."""

    def read(self, name: str) -> AsyncIterator[bytes]:
        """Its bytes, in pieces. Raises FileNotFoundError."""

    def local(self, name: str) -> AbstractAsyncContextManager[Path]:
        """The file on this machine, for as long as it is used. Raises FileNotFoundError."""

    async def delete(self, name: str) -> None:
        """Whether it is there or not."""


class FolderBlobs:
    """A folder. Several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, name: str, source: Path) -> None:
        await asyncio.to_thread(self._put, name, source)

    def _put(self, name: str, source: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as written:
            os.fsync(written.fileno())
        try:
            source.replace(self._folder / name)
        except OSError:  # on another disk
            beside = self._folder / f"{name}.part"
            shutil.copyfile(source, beside)
            beside.replace(self._folder / name)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread((self._folder / name).open, "rb")
        try:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece
        finally:
            file.close()

    @asynccontextmanager
    async def local(self, name: str) -> AsyncIterator[Path]:
        path = self._folder / name
        if not await asyncio.to_thread(path.exists):
            raise FileNotFoundError(name)
        yield path

    async def delete(self, name: str) -> None:
        await asyncio.to_thread((self._folder / name).unlink, missing_ok=True)

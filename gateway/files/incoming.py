"""Files that are on their way, on this machine's disk."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Incoming:
    """A folder for them. What a process that died has left there is removed by the next that begins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def file(self) -> AsyncIterator[Path]:
        """A new file's path, which is removed at the end if it is still there."""
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        path = self._folder / secrets.token_hex(12)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    async def write(self, path: Path, pieces: AsyncIterator[bytes]) -> int:
        """Write the pieces to a file as they come; give their number of bytes."""
        size = 0
        with await asyncio.to_thread(path.open, "wb") as file:
            async for piece in pieces:
                size += len(piece)
                await asyncio.to_thread(file.write, piece)
        return size

    def tidy(self, older_than: float) -> None:
        """Remove what was last written before this time, in seconds since 1970."""
        for path in self._folder.glob("*"):
            try:
                if path.stat().st_mtime < older_than:
                    path.unlink()
            except FileNotFoundError:
                continue  # another process was faster

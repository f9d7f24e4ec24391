"""Files in an S3-compatible store, by the library `obstore`, which takes what it needs to know from AWS_* variables."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.files.blobs import PIECE_BYTES
from gateway.files.incoming import Incoming
from gateway.settings import SettingsError


class S3Blobs:
    """The objects below one prefix of a bucket. Large files are uploaded in parts; none is held in memory."""

    def __init__(self, url: str, incoming: Incoming) -> None:
        """Raises SettingsError where the library isn't there or the settings are of no use to it."""
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise SettingsError(
                "FAREBOX_FILES_URL needs the package obstore: install farebox[s3], or leave it out to keep files in "
                "the data folder."
            ) from None
        self._obstore = obstore
        self._incoming = incoming
        plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        try:
            self._store = S3Store.from_url(url, client_options={"allow_http": plain})
        except BaseError as error:
            raise SettingsError(f"FAREBOX_FILES_URL can't be used: {str(error).splitlines()[0]}") from None

    async def put(self, name: str, source: Path) -> None:
        await self._obstore.put_async(self._store, name, source)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        found = await self._obstore.get_async(self._store, name)
        async for piece in found.stream(min_chunk_size=PIECE_BYTES):
            yield bytes(piece)

    @asynccontextmanager
    async def local(self, name: str) -> AsyncIterator[Path]:
        async with self._incoming.file() as path:
            await self._incoming.write(path, self.read(name))
            yield path

    async def delete(self, name: str) -> None:
        try:
            await self._obstore.delete_async(self._store, name)
        except FileNotFoundError:
            return

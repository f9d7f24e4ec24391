"""The style sheet and the scripts: read once, compressed once, and cached by browsers for as long as they like.

Their address holds a hash of them all, and the scripts import each other by relative paths, so a new release is a new
address for each.
"""

import gzip
import hashlib
from importlib import resources

from starlette.datastructures import Headers
from starlette.responses import Response

MEDIA_TYPES = {"css": "text/css", "js": "text/javascript"}
FOR_EVER = "public, max-age=31536000, immutable"


class Assets:
    """What is in the folder `static`."""

    def __init__(self) -> None:
        folder = resources.files("gateway").joinpath("console/static")
        files = {one.name: one.read_bytes() for one in folder.iterdir() if one.name.rpartition(".")[2] in MEDIA_TYPES}
        digest = hashlib.sha256()
        for name in sorted(files):
            digest.update(name.encode() + files[name])
        self.version = digest.hexdigest()[:16]
        self._files = {name: (data, gzip.compress(data, mtime=0)) for name, data in files.items()}

    def response(self, version: str, name: str, headers: Headers) -> Response | None:
        """One of them; None where there is none. Asked for by another release's address, it isn't to be kept."""
        if name not in self._files:
            return None
        plain, packed = self._files[name]
        zipped = "gzip" in headers.get("accept-encoding", "")
        return Response(
            packed if zipped else plain,
            media_type=MEDIA_TYPES[name.rpartition(".")[2]],
            headers={
                "cache-control": FOR_EVER if version == self.version else "no-store",
                "vary": "accept-encoding",
                **({"content-encoding": "gzip"} if zipped else {}),
            },
        )

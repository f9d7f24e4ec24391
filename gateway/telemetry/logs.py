"""The log: lines for people or JSON lines on stderr. The access log, one line a request, is JSON either way.

What may be in a line: `engine.log_lines`.
"""

import logging
import sys
from collections.abc import Mapping
from typing import TextIO

from engine.log_lines import Outlet
from gateway.settings import Settings

NOISY = ("httpx", "httpcore", "asyncio", "aiosqlite", "alembic", "sqlalchemy", "uvicorn")

_access = logging.getLogger("farebox.access")


def configure_logging(
    settings: Settings,
    worker: int | None = None,
    *,
    stream: TextIO | None = None,
    mark: str = "",
    mark_below: str = "",
) -> None:
    """Let everything that this process logs go to `stream` (stderr), in the settings' format and from their level on.

    Where there are several processes, each line says which worker's it is. For the marks see `gateway.process.streams`.
    """
    origin: dict[str, object] = {} if worker is None else {"worker": worker}
    stream = stream or sys.stderr
    everything = Outlet(stream, form=settings.log_format, origin=origin, mark=mark, mark_below=mark_below)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[everything])
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    requests = Outlet(stream, form="json", origin=origin, mark=mark)
    _access.addHandler(requests)
    _access.propagate = False


def log_request(fields: Mapping[str, object]) -> None:
    """A line of the access log. It must hold no prompt, no answer and no key but its prefix."""
    if _access.isEnabledFor(logging.INFO):
        _access.info("%s", fields, extra={"fields": fields})

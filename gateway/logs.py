"""The log: lines for people or JSON lines on stderr. The access log, one line a request, is JSON either way."""

import logging
import sys
from collections.abc import Mapping

from engine.log_lines import JSONLines
from gateway.settings import Settings

TEXT = "%(asctime)s %(levelname)s %(name)s{} %(message)s"
NOISY = ("httpx", "httpcore", "asyncio", "aiosqlite", "alembic", "sqlalchemy", "uvicorn")

_access = logging.getLogger("farebox.access")


def configure_logging(settings: Settings, worker: int | None = None) -> None:
    """Let everything that this process logs go to stderr, in the settings' format and from their level on.

    Where there are several processes, each line says which worker's it is.
    """
    lines = JSONLines(origin={} if worker is None else {"worker": worker})
    everything = logging.StreamHandler(sys.stderr)
    everything.setFormatter(
        lines
        if settings.log_format == "json"
        else logging.Formatter(TEXT.format("" if worker is None else f"[{worker}]"))
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[everything])
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    requests = logging.StreamHandler(sys.stderr)
    requests.setFormatter(lines)
    _access.addHandler(requests)
    _access.propagate = False


def log_request(fields: Mapping[str, object]) -> None:
    """A line of the access log. It must hold no prompt, no answer and no key but its prefix."""
    if _access.isEnabledFor(logging.INFO):
        _access.info("%s", fields, extra={"fields": fields})

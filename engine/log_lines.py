"""Log records as JSON lines, for this process and for vLLM's."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_as_json = json.JSONEncoder(ensure_ascii=False, default=str).encode


class JSONLines(logging.Formatter):
    """One object a line: time (UTC), level, logger, and the message or, where a record has `fields`, those.

    `origin` is in every line.
    """

    def __init__(self, *arguments: Any, origin: Mapping[str, object] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._origin = dict(origin or {})

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": moment,
            "level": record.levelname.lower(),
            "logger": record.name,
        } | self._origin
        fields = getattr(record, "fields", None)
        line |= fields if fields is not None else {"message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _as_json(line)


def in_use() -> bool:
    """Whether this process logs in JSON lines."""
    return any(isinstance(handler.formatter, JSONLines) for handler in logging.getLogger().handlers)

"""What this process and vLLM's may log, and how it is written: nothing that a client or a model said, one line each.

Before requests come, whatever vLLM and the libraries under it log is about the machine and the model, and is logged in
full. From then on nobody can tell which of their thousand log calls hold a prompt or an answer, so that of each record
only what is in their source code is kept: the constant message, the place, and the types of exceptions with theirs.
A place says so once a minute; the log can't grow with each token. Our own records (`farebox.*`, `engine.*`, ...) hold
nothing said, and only lose the texts of exceptions.
"""

import copy
import inspect
import json
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Literal, TextIO

Form = Literal["text", "json"]

OURS = ("farebox", "engine", "gateway", "pricing", "storage")
REPEAT_SECONDS = 60.0  # for one place in somebody else's code
FRAMES_MAX = 12
CAUSES_MAX = 4
LINE_BYTES_MAX = 4000  # Linux writes up to 4096 to a pipe in one piece, so that lines of several processes don't mix
WITHHELD = "(a message that may hold what was said)"

# Errors whose text is the machine's.
_OF_THE_MACHINE = frozenset({"MemoryError", "OutOfMemoryError", "AcceleratorError"})
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LIBRARY = re.compile(r"^.*/(?:site-packages|lib/python3\.\d+)/")
_as_json = json.JSONEncoder(ensure_ascii=False, default=str).encode

_requests = threading.Event()


def requests_come() -> None:
    """To be called in each process before its first request: from now on a record may hold what a client said."""
    _requests.set()


def no_requests_yet() -> bool:
    """Whether what this process and those under it write is about the machine and the model only."""
    return not _requests.is_set()


class BeforeRequests(logging.Filter):
    """Lets through what is logged before requests come, which a file called `marker` tells to vLLM's processes."""

    def __init__(self, marker: str | None = None) -> None:
        super().__init__()
        self._marker = Path(marker) if marker is not None else None

    def filter(self, record: logging.LogRecord) -> bool:
        if self._marker is not None and not _requests.is_set() and self._marker.exists():
            _requests.set()
        return not _requests.is_set()


class Outlet(logging.StreamHandler[TextIO]):
    """Writes records to `stream` (stderr), as this module's docstring says.

    `origin` is in every line; each begins with `mark`, and `mark_below` is for the processes that this one starts:
    `gateway.process.streams` tells log lines from other output by it. `marker`: see `BeforeRequests`.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        form: Form = "text",
        origin: Mapping[str, object] | None = None,
        mark: str = "",
        mark_below: str = "",
        marker: str | None = None,
    ) -> None:
        super().__init__(stream)
        self.form, self.mark_below = form, mark_below
        self.setFormatter(JSONLines(origin) if form == "json" else TextLines(origin))
        self._mark = mark
        self._before = BeforeRequests(marker)
        self._places: dict[tuple[str, str, int], _Place] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if not self._before.filter(record):
            if not is_ours(record):
                place = self._places.setdefault((record.name, record.pathname, record.lineno), _Place())
                if not place.opens():
                    return
                record = _constant_part(record, place.take_missed())
            elif record.exc_info:
                record = _without_texts(record)
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return self._mark + (line if not self._mark else _cut(line).replace("\n", f"\n{self._mark}"))


class _Place:
    """One log call in somebody else's code, and how often it was passed over since it was last heard."""

    __slots__ = ("missed", "next")

    def __init__(self) -> None:
        self.missed, self.next = 0, 0.0

    def opens(self) -> bool:
        now = time.monotonic()
        if now < self.next:
            self.missed += 1
            return False
        self.next = now + REPEAT_SECONDS
        return True

    def take_missed(self) -> int:
        missed, self.missed = self.missed, 0
        return missed


class TextLines(logging.Formatter):
    """For people: a line that no message can break into two. A traceback follows only before requests come."""

    def __init__(self, origin: Mapping[str, object] | None = None) -> None:
        names = "".join(f"[{value}]" for value in (origin or {}).values())
        super().__init__(f"%(asctime)s %(levelname)s %(name)s{names} %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        record.message = on_one_line(record.message)
        return super().formatMessage(record)


class JSONLines(logging.Formatter):
    """One object a line: time (UTC), level, logger, and the message or, where a record has `fields`, those."""

    def __init__(self, origin: Mapping[str, object] | None = None) -> None:
        super().__init__()
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
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", _as_json(line))


def outlet() -> Outlet | None:
    """That of this process, if it has one."""
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, Outlet)), None)


def on_one_line(text: str) -> str:
    """With escapes for what would begin another line, or reach into a terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in OURS


def where(error: BaseException) -> str:
    """An exception and its causes by their types and places in the code, without their texts."""
    told: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(told) < CAUSES_MAX:
        told.append(f"{type(seen).__qualname__}{_reason(seen)}{_places_of(seen)}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return ", after ".join(told)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f" ({os.strerror(error.errno)})"
    return f" ({on_one_line(str(error))[:300]})" if type(error).__name__ in _OF_THE_MACHINE else ""


def _places_of(error: BaseException) -> str:
    places: list[str] = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        places.append(f"{_LIBRARY.sub('', code.co_filename)}:{step.tb_lineno} in {code.co_name}")
        step = step.tb_next
    return f" at {' < '.join(places[: -FRAMES_MAX - 1 : -1])}" if places else ""


def _without_texts(record: logging.LogRecord, more: str = "") -> logging.LogRecord:
    """A copy without exception and stack, which may hold values; in their place where it came from."""
    plain = copy.copy(record)
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        more = f"{more}{'; ' if more else ''}{where(error)}"
    plain.msg = f"{record.getMessage()} [{more}]" if more else record.getMessage()
    plain.args, plain.exc_info, plain.exc_text, plain.stack_info = (), None, None, None
    return plain


def _constant_part(record: logging.LogRecord, missed: int) -> logging.LogRecord:
    """A copy with the message as the source code has it, if it has it, and no value in it."""
    plain = copy.copy(record)
    plain.msg = record.msg if _is_constant(record) else WITHHELD
    plain.args = ()
    again = f"; {missed} more of it since" if missed else ""
    return _without_texts(plain, f"{_LIBRARY.sub('', record.pathname)}:{record.lineno}{again}")


def _is_constant(record: logging.LogRecord) -> bool:
    """Whether the message is a constant of the function that logs it: one that was put together isn't."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        if frame.f_lineno == record.lineno and frame.f_code.co_filename == record.pathname:
            return isinstance(record.msg, str) and record.msg in frame.f_code.co_consts
        frame = frame.f_back
    return False


def _cut(line: str) -> str:
    raw = line.encode(errors="backslashreplace")
    return line if len(raw) <= LINE_BYTES_MAX else raw[:LINE_BYTES_MAX].decode(errors="ignore") + "…"

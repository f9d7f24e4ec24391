"""stdout and stderr of `farebox serve`, and of every process under it: ours alone write there.

vLLM, torch and what lies under them write to file descriptors 1 and 2 past any logging, from C++ and in processes of
their own: progress bars, warnings that alarm only newcomers, and, once requests come, perhaps what was said. So these
descriptors lead into a pipe that this process reads. Log lines come through it with a mark; of all else the log has, at
debug level, what came before the first request, and from then on only that something came.
"""

import contextlib
import logging
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from engine.environment import logging_taken_over
from engine.log_lines import no_requests_yet

log = logging.getLogger("farebox.output")

LINE_BYTES_MAX = 16_384  # of a line that doesn't end; what comes beyond it is another
PROGRESS_SECONDS = 10.0
WITHHELD_SECONDS = 60.0
DRAIN_SECONDS = 1.0

_BREAKS = re.compile(rb"[\r\n]+")
# A progress bar: weights are being downloaded or read.
_PROGRESS = re.compile(r"\s*(?P<what>[\w .,-]{1,80}?):?\s+(?P<percent>\d{1,3})%")
# How a process ends that C++ or the interpreter ends. Nothing of this is a value.
_FAULT = re.compile(
    r"Fatal Python error: [\w ]+|terminate called after throwing an instance of '[\w:]+'"
    r"|\s*what\(\):\s+CUDA error: [\w ,-]+|  File \"[^\"]+\", line \d+ in \S+"
)


class Streams:
    """`out` and `err` are the real ones; `mark` is what log lines of processes under this one begin with."""

    def __init__(self, out: TextIO, err: TextIO, mark: str = "") -> None:
        self.out, self.err, self.mark = out, err, mark
        self._next_progress = self._next_withheld = 0.0
        self._withheld = 0

    def say(self, text: str) -> None:
        """Print to the real stdout."""
        print(text, file=self.out, flush=True)

    def read(self, source: int) -> None:
        """Until every writer is gone."""
        rest = b""
        while piece := os.read(source, 1 << 16):
            *lines, rest = _BREAKS.split(rest + piece)
            if len(rest) > LINE_BYTES_MAX:
                lines, rest = [*lines, rest], b""
            for line in filter(None, lines):
                self._pass_on(line)
        os.close(source)

    def _pass_on(self, line: bytes) -> None:
        if line.startswith(self.mark.encode()):
            with contextlib.suppress(OSError, ValueError):  # nobody reads us any more
                self.err.write(line[len(self.mark) :].decode(errors="replace") + "\n")
                self.err.flush()
        else:
            self._stray(line.decode(errors="replace"))

    def _stray(self, text: str) -> None:
        now = time.monotonic()
        if _FAULT.fullmatch(text):
            log.error("%s", text)
        elif no_requests_yet():
            if (found := _PROGRESS.match(text)) is not None and now >= self._next_progress:
                self._next_progress = now + PROGRESS_SECONDS
                if found["percent"] not in ("0", "100"):
                    log.info("%s: %s%%", found["what"], found["percent"])
            log.debug("%s", text)
        else:
            self._withheld += 1
            if now >= self._next_withheld:
                self._next_withheld = now + WITHHELD_SECONDS
                log.debug("lines past the log, which may hold what was said: %d, withheld", self._withheld)
                self._withheld = 0


@contextlib.contextmanager
def own_streams() -> Iterator[Streams]:
    """Take stdout and stderr over. Afterwards `sys.stdout` and `sys.stderr` are the real ones, for Python code alone.

    Not where the operator has configured vLLM's logging: that writes where it says.
    """
    if logging_taken_over() or None in (sys.stdout, sys.stderr):  # None: they are closed
        yield Streams(sys.stdout, sys.stderr)
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    out, err = (os.fdopen(os.dup(number), "w", buffering=1, errors="backslashreplace") for number in (1, 2))
    streams = Streams(out, err, f"\x1e{secrets.token_hex(8)} ")
    source, sink = os.pipe()
    _lead(sink)
    os.close(sink)
    reader = threading.Thread(target=streams.read, args=(source,), name="streams", daemon=True)
    reader.start()
    try:
        yield streams
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # What libraries say when the interpreter ends is of no use to an operator, but to one who looks for a fault.
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
        else:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            _lead(nowhere)
            os.close(nowhere)
        reader.join(DRAIN_SECONDS)
        sys.stdout, sys.stderr = out, err


def _lead(target: int) -> None:
    for number in (1, 2):
        os.dup2(target, number)

"""What comes through the pipe that stdout and stderr lead into: log lines of processes below, and all else."""

import io
import os
import threading

import pytest

from engine.log_lines import requests_come
from gateway.process.streams import LINE_BYTES_MAX, Streams

MARK = "\x1e0123 "


def passed_on(*pieces: bytes) -> str:
    """What of these pieces reaches the real stderr, once requests have come."""
    requests_come()
    err = io.StringIO()
    source, sink = os.pipe()
    reader = threading.Thread(target=Streams(io.StringIO(), err, MARK).read, args=(source,))
    reader.start()
    for piece in pieces:
        os.write(sink, piece)
    os.close(sink)
    reader.join(10)
    assert not reader.is_alive()
    return err.getvalue()


def test_marked_lines_come_through_and_others_do_not() -> None:
    line = f"{MARK}Grüße from a worker\n".encode()
    assert passed_on(line, b"patient-Ottilie\n", line) == "Grüße from a worker\n" * 2
    assert passed_on(line[:9], line[9:]) == "Grüße from a worker\n"
    assert passed_on(b"\x1e9999 forged\n", b"x " + line) == ""


def test_a_line_without_end_takes_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    endless = [b"x" * 10_000] * (LINE_BYTES_MAX // 1000)
    assert passed_on(*endless, b"\n", f"{MARK}after\n".encode()) == "after\n"


def test_a_fault_is_told_and_what_stands_beside_it_is_not(caplog: pytest.LogCaptureFixture) -> None:
    passed_on(
        b"Fatal Python error: Segmentation fault\n\n",
        b'  File "/lib/x.py", line 12 in generate\n',
        b"terminate called after throwing an instance of 'std::runtime_error'\n",
        b"  what():  patient-Ottilie\n",
        b"Fatal Python error: patient-Ottilie\n",
    )
    assert [record.getMessage().strip() for record in caplog.records if record.levelname == "ERROR"] == [
        "Fatal Python error: Segmentation fault",
        'File "/lib/x.py", line 12 in generate',
        "terminate called after throwing an instance of 'std::runtime_error'",
    ]

"""What Linux says of one process: CPU time and memory. Nothing is asked of the process itself."""

import os
import threading
from pathlib import Path
from types import TracebackType

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of the process with all its threads, without its children. In steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Memory of the process that is in RAM (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def descriptors(pid: int) -> int:
    """How many files and sockets the process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def children(pid: int) -> list[int]:
    """The process's children, by their main thread."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def describe() -> str:
    """The machine in a line: processor, number of cores, and how busy it is."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown processor",
    )
    return f"{model}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"


class Watch:
    """CPU time and peak memory of a process between entering and leaving."""

    def __init__(self, pid: int) -> None:
        self.cpu_seconds = 0.0
        self.bytes_before = 0
        self.bytes_peak = 0
        self._pid = pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Watch":
        self.bytes_before = self.bytes_peak = resident_bytes(self._pid)
        self._started = cpu_seconds(self._pid)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cpu_seconds = cpu_seconds(self._pid) - self._started
        self._end.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._end.wait(0.1):
            self.bytes_peak = max(self.bytes_peak, resident_bytes(self._pid))

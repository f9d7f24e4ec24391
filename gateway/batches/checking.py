"""Has `gateway.batches.checker` check a file, in a process that is ended where it takes too long or too much memory."""

import asyncio
import pickle
import signal
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass

from gateway.batches.checker import Conversion, FileCheck, Report
from gateway.errors import BodyTooLarge, GatewayError

STUCK = 4  # times the CPU time that it may take: then it is stuck, or the machine is


@dataclass(frozen=True, slots=True)
class Checking:
    """How much a check may take."""

    cpu_seconds_max: float
    memory_bytes_max: int

    async def check(self, job: FileCheck | Conversion) -> Report:
        """Raises GatewayError for what can't be a batch at all."""
        code = f"from gateway.batches.checker import main; main({self.cpu_seconds_max}, {self.memory_bytes_max})"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=PIPE, stdout=PIPE)
        try:
            async with asyncio.timeout(STUCK * self.cpu_seconds_max):
                answer, _ = await process.communicate(pickle.dumps(job, pickle.HIGHEST_PROTOCOL))
        except TimeoutError:
            answer = b""
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0 or not answer:
            took = f"{self.cpu_seconds_max:g} s of CPU time"
            if process.returncode not in (-signal.SIGPROF, -signal.SIGKILL):
                took = f"{self.memory_bytes_max} bytes of memory"
            raise BodyTooLarge(f"The batch takes more than {took} to check. Make it smaller.")
        found: Report | GatewayError = pickle.loads(answer)  # noqa: S301 - from our own child
        if isinstance(found, GatewayError):
            raise found
        return found

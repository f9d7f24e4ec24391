"""The work on one batch, by the process that holds its lease: check its file, run its lines, write its results.

Every step may be the last that this process takes, and another goes on from what is durable: a line that has its result
isn't run again. Whether a line is charged is decided with its result, in one transaction (`BatchStore.write`).
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from gateway.batches.batch import Batch, Fault, Result, Status
from gateway.batches.checker import FileCheck, Report, lines_of
from gateway.batches.checking import Checking
from gateway.batches.finishing import Finishing
from gateway.batches.room import Room
from gateway.batches.store import BatchStore
from gateway.errors import GatewayError, ShuttingDown, Unavailable, from_exception
from gateway.files.files import Files
from pricing.cost import Tokens
from pricing.errors import Overtaken
from storage.errors import LedgerUnavailable

log = logging.getLogger("farebox.batches")

READ_AT_ONCE = 32  # lines
PAUSE_SECONDS = (0.5, 10.0)  # before a line is tried again for which there was no room
TRIES_MAX = 3  # of a line at which the engine or the gateway fails


@dataclass(frozen=True, slots=True)
class Line:
    """One request of a batch; `number` counts the lines of its file from 1."""

    number: int
    custom_id: str
    body: bytes


Keep = Callable[[Result, Tokens | None], Awaitable[None]]


class LineRunner(Protocol):
    """How a line is run: as any request is, by the route's own handler (`gateway.routes.batch_lines`)."""

    @property
    def ready(self) -> bool:
        """Whether batches may be taken up: not while the gateway stops."""

    def room(self, batch: Batch, line: Line) -> Room | None:
        """The room on the engine of the line's model; None where there is no such model."""

    async def run(self, batch: Batch, line: Line, keep: Keep) -> None:
        """Answer the line. `keep` is called with its result before it is charged; what it raises undoes the charge.

        Raises whatever the route's handler does: then `keep` wasn't called.
        """

    def error_body(self, batch: Batch, error: GatewayError, request_id: str) -> str:
        """An error as the route's clients expect it."""

    def checks(self, batch: Batch, path: Path) -> FileCheck:
        """What the batch's file is to be checked for."""


class Work:
    """On one batch. `run` returns when it has ended, or when it is another process's."""

    def __init__(
        self,
        batch: Batch,
        owner: str,
        store: BatchStore,
        files: Files,
        runner: LineRunner,
        checking: Checking,
        finishing: Finishing,
        lease_ms: int,
    ) -> None:
        self._batch = batch
        self._owner = owner
        self._store = store
        self._files = files
        self._runner = runner
        self._checking = checking
        self._finishing = finishing
        self._lease_ms = lease_ms
        self._stop = asyncio.Event()  # no further line is begun
        self._running: set[asyncio.Task[None]] = set()
        self._unpaid: list[Line] = []  # refused for money while others of this batch held some
        self._input_gone = False
        self._alone = False  # lines run one after the other: money has run out

    async def run(self) -> None:
        work = asyncio.current_task()
        assert work is not None
        lease = asyncio.create_task(self._keep_lease(work), name=f"lease of {self._batch.id}")
        try:
            if self._batch.status is Status.VALIDATING:
                await self._validate()
            if self._batch.status is Status.IN_PROGRESS:
                await self._run_lines()
            await self._finish()
        finally:
            lease.cancel()
            for task in self._running:
                task.cancel()
            await asyncio.gather(lease, *self._running, return_exceptions=True)

    async def _keep_lease(self, work: "asyncio.Task[object]") -> None:
        """Say that it is worked on, and hear whether it is to stop. Without the database nothing is known, and no
        result can be written either."""
        while True:
            await asyncio.sleep(self._lease_ms / 4000)
            try:
                status = await self._store.renew(self._batch.id, self._owner, self._lease_ms)
            except LedgerUnavailable:
                continue
            if status is None:
                log.warning("another process works on %s now", self._batch.id)
                work.cancel()
                return
            if status is Status.CANCELLING or self._store.now() >= self._batch.expires_at:
                self._stop.set()

    async def _validate(self) -> None:
        batch = self._batch
        try:
            async with self._files.local(batch.input_file_id) as path:
                report = await self._checking.check(self._runner.checks(batch, path))
        except FileNotFoundError:
            report = Report(faults=[Fault("file_not_found", "The input file is gone.", param="input_file_id")])
        except GatewayError as error:
            report = Report(faults=[Fault(error.code, error.message)])
        now = self._store.now()
        if report.faults:
            errors = json.dumps([asdict(fault) for fault in report.faults], ensure_ascii=False)
            after, values = Status.FAILED, {"errors": errors, "failed_at": now}
            await self._finishing.end(batch, self._owner, after, values)
        else:
            values = {"total": report.total, "model": report.model, "in_progress_at": now}
            await self._store.move(batch.id, self._owner, Status.VALIDATING, Status.IN_PROGRESS, **values)
        await self._look_again()

    async def _look_again(self) -> None:
        self._batch = await self._store.get(self._batch.id) or self._batch

    async def _run_lines(self) -> None:
        done = await self._store.done(self._batch.id)
        try:
            async for line in self._lines():
                if self._stop.is_set():
                    break
                if line.number not in done:
                    await self._begin(line)
            await self._settle_running()
        except FileNotFoundError:
            log.warning("the input file of %s is gone; what wasn't reached ends as expired", self._batch.id)
            self._input_gone = True
        await self._look_again()

    async def _lines(self) -> AsyncIterator[Line]:
        """In their order, some at a time."""
        async with self._files.local(self._batch.input_file_id) as path:
            lines = await asyncio.to_thread(lines_of, path)
            while some := await asyncio.to_thread(_some, lines):
                for line in some:
                    yield line

    async def _begin(self, line: Line) -> None:
        """Run it as soon as there is room, beside others, or alone where money has run out."""
        if self._unpaid or self._alone:
            await self._settle_running()
        if self._alone:
            async with self._place(line) as free:
                if free:
                    await self._try(line)
            return
        room = self._runner.room(self._batch, line)
        if room is not None and not await self._taken(room):
            return
        task = asyncio.create_task(self._in(room, line), name=f"{self._batch.id} line {line.number}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _in(self, room: Room | None, line: Line) -> None:
        well = False
        try:
            well = await self._try(line)
        finally:
            if room is not None:
                room.give(well=well)

    @asynccontextmanager
    async def _place(self, line: Line) -> AsyncIterator[bool]:
        room = self._runner.room(self._batch, line)
        free = room is None or await self._taken(room)
        try:
            yield free
        finally:
            if room is not None and free:
                room.give(well=True)

    async def _taken(self, room: Room) -> bool:
        """A place, or the word to stop, whichever comes first."""
        stop, place = asyncio.create_task(self._stop.wait()), asyncio.create_task(room.take())
        try:
            await asyncio.wait({stop, place}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if place.done():
                room.give(well=False)
            raise
        finally:
            stop.cancel()
            got = place.done()
            place.cancel()
        return got

    async def _settle_running(self) -> None:
        """Wait for those that run; then those that there was no money for while others held it."""
        while self._running:
            await asyncio.wait(self._running)
        unpaid, self._unpaid = self._unpaid, []
        for line in unpaid:
            if self._stop.is_set():
                return
            self._alone = True
            async with self._place(line) as free:
                if free:
                    await self._try(line)

    async def _try(self, line: Line) -> bool:
        """Run it until it has its result; whether it has one that is no refusal."""
        pause, longest = PAUSE_SECONDS
        tries = 0
        while not self._stop.is_set():
            try:
                await self._runner.run(self._batch, line, self._keep)
            except Overtaken:
                return False  # it has its result: another process wrote it
            except Exception as error:
                known = from_exception(error)
                if isinstance(known, ShuttingDown):
                    self._stop.set()  # another process goes on
                    return False
                tries += known.status == 500
                if known.code == "insufficient_funds" and not self._alone and len(self._running) > 1:
                    self._unpaid.append(line)
                    return False
                if isinstance(known, Unavailable) or (known.status == 500 and tries < TRIES_MAX):
                    await self._pause(pause)
                    pause = min(2 * pause, longest)
                    continue
                await self._refuse(line, known, error)
                return False
            else:
                self._alone = False
                return True
        return False

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _refuse(self, line: Line, known: GatewayError, error: Exception) -> None:
        if known.code == "internal_error":
            log.error("line %d of %s failed", line.number, self._batch.id, exc_info=error)
        request_id = f"{self._batch.id}-{line.number}"
        body = self._runner.error_body(self._batch, known, request_id)
        try:
            await self._keep(Result(line.number, line.custom_id, request_id, known.status, body), None)
        except Overtaken:
            return

    async def _keep(self, result: Result, charged: Tokens | None) -> None:
        """Write a result, for as long as the database takes to come back."""
        pause, longest = PAUSE_SECONDS
        while True:
            try:
                await self._store.write(self._batch.id, result, charged)
                return
            except LedgerUnavailable as error:
                log.warning("a result of %s waits: %s", self._batch.id, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)

    async def _finish(self) -> None:
        """Write the result files, and say that it has ended."""
        batch = self._batch
        if not batch.is_open:
            return
        if batch.status is Status.IN_PROGRESS:
            done = await self._store.tally(batch.id)
            if done.completed + done.failed == batch.total:
                values = {"finalizing_at": self._store.now()}
                await self._store.move(batch.id, self._owner, Status.IN_PROGRESS, Status.FINALIZING, **values)
            elif not self._input_gone and self._store.now() < batch.expires_at:
                return  # this process stops
            await self._look_again()
        await self._finishing.finish(self._batch, self._owner)


def _some(lines: Iterator[tuple[int, str, bytes]]) -> list[Line]:
    return [Line(*one) for one in islice(lines, READ_AT_ONCE)]

"""This process's row in `processes`, and how to tell that another process is dead."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import delete, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pricing import tables
from storage.database import Database


def _this_machine() -> str:
    """Names the place where a process id means the same: this boot of this kernel and this pid namespace (a container
    has its own). Empty where that can't be told; then only leases tell who is dead."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


@dataclass(slots=True)
class Process:
    """One opened ledger. `id` is new each time; machine and pid let a restart on the same machine recover at once."""

    lease_ms: int
    started_at: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    machine: str = field(default_factory=_this_machine)
    pid: int = field(default_factory=os.getpid)
    beat: int = 0

    async def heartbeat(self, database: Database) -> None:
        """Renew the lease; make the row again if others took this process for dead."""
        self.beat += 1
        table = tables.processes
        renew = update(table).where(table.c.id == self.id).values(beat=self.beat, lease_ms=self.lease_ms)
        async with database.write() as connection:
            if (await connection.execute(renew)).rowcount == 0:
                await connection.execute(
                    insert(table).values(
                        id=self.id,
                        machine=self.machine,
                        pid=self.pid,
                        pid_started=pid_started(self.pid) or 0,
                        beat=self.beat,
                        lease_ms=self.lease_ms,
                        started_at=self.started_at,
                    )
                )

    async def farewell(self, database: Database) -> None:
        """Take the row away, or, where reservations are left, offer them to the others at once."""
        table = tables.processes
        left = exists(select(tables.reservations.c.request_id).where(tables.reservations.c.process_id == self.id))
        async with database.write() as connection:
            await connection.execute(update(table).where(table.c.id == self.id).values(lease_ms=0))
            await connection.execute(delete(table).where(table.c.id == self.id, ~left))


def pid_started(pid: int) -> int | None:
    """When this process started, in clock ticks since boot (proc_pid_stat(5), field 22); None if that can't be read,
    0 if the process is dead and only waits for its parent."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return 0 if fields[0] in "ZX" else int(fields[19])


def is_gone(pid: int, started: int) -> bool:
    """Whether the process of this id and start is certainly dead, on this machine."""
    now_started = pid_started(pid)
    if now_started is not None:
        return now_started != started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # there, but another user's
    return False


async def adopt_orphans(connection: AsyncConnection, lease_ms: int, now: int) -> None:
    """Make a row for each process that has reservations and none, so that its lease can run out.

    That happens when a process was taken for dead, lives on, reserves, and dies before its next heartbeat.
    """
    table, owners = tables.processes, tables.reservations.c.process_id
    unknown = select(owners).distinct().where(owners.not_in(select(table.c.id)))
    for process_id in (await connection.scalars(unknown)).all():
        await connection.execute(
            insert(table).values(
                id=process_id, machine="", pid=0, pid_started=0, beat=0, lease_ms=lease_ms, started_at=now
            )
        )

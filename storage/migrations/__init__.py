"""The schema's history (Alembic), shipped inside the package.

Revisions are numbered "0001", "0002", ... and written so that the code before still works beside the new schema
wherever that can be: each revision stores in `meta.compatible_from` the oldest code revision that works with it. In a
rolling update the schema goes first, then the code: code finds a newer schema that lists it as compatible, and works;
or one that doesn't, and refuses to start. Code never works with a schema older than itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, select, text

from storage.database import Database
from storage.errors import SchemaMismatch
from storage.postgres_server import DatabaseTimes
from storage.schema import meta

REVISION: Final = "0005"
"""The schema that this code is written for."""

MIGRATION_TIMES: Final = DatabaseTimes(lock_ms=60_000, idle_ms=60_000, statement_ms=3_600_000)
"""For a connection that migrates: a large table takes its time, and another process that migrates is waited for."""

_LOCK: Final = 7_203_541_188_150_000  # any number; the advisory lock of those who migrate


async def upgrade(database: Database) -> None:
    """Bring the schema to this code's revision. Safe to run from several processes at once.

    Does nothing to a newer schema that this code works with. Raises LedgerUnavailable, SchemaMismatch.
    """
    async with database.write() as connection:
        if database.is_postgresql:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        found = await connection.run_sync(_revision)
        if found is None or found < REVISION:
            await connection.run_sync(migrate)
    await check(database)


async def check(database: Database) -> None:
    """Raise SchemaMismatch, with a sentence that says what to run, unless this code can work with the schema."""
    async with database.read() as connection:
        found = await connection.run_sync(_revision)
        if found is None:
            raise SchemaMismatch("The database has no Farebox tables yet. Run `farebox db upgrade`.")
        if found < REVISION:
            raise SchemaMismatch(
                f"The database's schema is at revision {found} and this version of Farebox needs {REVISION}. "
                "Run `farebox db upgrade`."
            )
        oldest = (await connection.execute(select(meta.c.compatible_from))).scalar_one()
    if oldest > REVISION:
        raise SchemaMismatch(
            f"The database's schema is at revision {found}, which works with versions of Farebox for revision {oldest} "
            f"and later; this one is for {REVISION}. Install a newer Farebox."
        )


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def migrate(connection: Connection, revision: str = "head") -> None:
    """Run what is missing up to this revision, in the caller's transaction; `upgrade` is for everybody else."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)

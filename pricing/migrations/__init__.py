"""The schema's history (Alembic), shipped inside the package."""

from __future__ import annotations

from pricing.database import Database


async def upgrade(database: Database) -> None:
    """Bring the schema to this code's revision. Safe to run from several processes at once. Raises LedgerUnavailable."""
    raise NotImplementedError


async def check(database: Database) -> None:
    """Raise SchemaMismatch, with a sentence that says what to run, unless this code can work with the schema.

    A newer schema is fine where it says that code of this revision still works with it (a rolling update).
    """
    raise NotImplementedError

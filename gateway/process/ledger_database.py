"""The ledger's database as the settings have it, for the gateway and for the commands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.settings import Settings, SettingsError
from storage.database import Database
from storage.migrations import check, upgrade
from storage.postgres_server import DatabaseTimes


@asynccontextmanager
async def ledger_database(settings: Settings) -> AsyncIterator[Database]:
    """The database, its schema up to date. Raises SettingsError, LedgerUnavailable, SchemaMismatch, InvalidSetting."""
    async with any_database(settings) as database:
        # The embedded database belongs to this gateway alone; a shared one is migrated on purpose.
        await (upgrade(database) if settings.embedded_database else check(database))
        yield database


@asynccontextmanager
async def any_database(settings: Settings, times: DatabaseTimes | None = None) -> AsyncIterator[Database]:
    """The database, whatever its schema. Raises SettingsError, LedgerUnavailable, InvalidSetting."""
    if settings.database_url is None or settings.embedded_database:
        make_data_dir(settings)
    database = await Database.open(settings.database, times=times or _times(settings))
    try:
        yield database
    finally:
        await database.close()


def _times(settings: Settings) -> DatabaseTimes:
    if settings.database_lock_seconds >= settings.database_statement_seconds:
        raise SettingsError(
            f"FAREBOX_DATABASE_LOCK_SECONDS is {settings.database_lock_seconds:g}; it must be less than "
            f"FAREBOX_DATABASE_STATEMENT_SECONDS, which is {settings.database_statement_seconds:g}."
        )
    return DatabaseTimes(
        lock_ms=int(settings.database_lock_seconds * 1000),
        idle_ms=int(settings.database_idle_seconds * 1000),
        statement_ms=int(settings.database_statement_seconds * 1000),
    )


def make_data_dir(settings: Settings) -> None:
    """The folder of the embedded database. Raises SettingsError."""
    if "?" in str(settings.data_dir) or not str(settings.data_dir).isprintable():
        raise SettingsError(
            f"The data folder {str(settings.data_dir)!r} can't be used: its name has a ? or what can't be printed."
        )
    try:
        settings.data_dir.expanduser().mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the latter where there is no such home
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(
            f"The data folder {str(settings.data_dir)!r} can't be made: {reason}. Choose another one with "
            "FAREBOX_DATA_DIR or --data-dir."
        ) from None

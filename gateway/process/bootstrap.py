"""The first account and keys, so that a fresh start can be used at once."""

import getpass
import os
from dataclasses import dataclass, field

from gateway.settings import Settings
from pricing.accounts import Account, Accounts
from pricing.keys import Keys
from storage.database import Database

ACCOUNT_NAME = "default"
ADMIN_ACCOUNT_NAME = "admin"
ACTOR = "farebox serve"


@dataclass(frozen=True, slots=True)
class FirstKeys:
    """`made` is the secret of a key that was made just now; it can't be shown again. `given`: the settings name one."""

    made: str | None = field(default=None, repr=False)
    given: bool = False


async def ensure_keys(database: Database, settings: Settings) -> FirstKeys:
    """Register the keys of the settings where they don't exist; on the very first start without any, make one."""
    keys = Keys(database)
    if settings.admin_key is not None:
        await _register(database, ADMIN_ACCOUNT_NAME, "admin", settings.admin_key.get_secret_value(), admin=True)
    if settings.bootstrap_key is not None:
        await _register(database, ACCOUNT_NAME, "bootstrap", settings.bootstrap_key.get_secret_value(), admin=False)
        return FirstKeys(given=True)
    if any(key.role == "user" for key in await keys.list(include_revoked=True)):
        return FirstKeys()
    account = await _account(database, ACCOUNT_NAME)
    created = await keys.create(account.id, "first", actor=ACTOR)
    return FirstKeys(made=created.secret)


async def _register(database: Database, account_name: str, name: str, secret: str, *, admin: bool) -> None:
    keys = Keys(database)
    if await keys.by_secret(secret) is None:
        account = await _account(database, account_name)
        taken = {key.name for key in await keys.list(account_id=account.id, include_revoked=True)}
        # A changed setting registers a second key; the first one stays until it is revoked.
        free = next(
            name if n == 1 else f"{name}-{n}"
            for n in range(1, len(taken) + 2)
            if (name if n == 1 else f"{name}-{n}") not in taken
        )
        await keys.create(account.id, free, actor=ACTOR, role="admin" if admin else "user", secret=secret)


async def _account(database: Database, name: str) -> Account:
    accounts = Accounts(database)
    return await accounts.find(name) or await accounts.create(name, actor=ACTOR)


def operator() -> str:
    """Who runs a command, for the audit log."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # in a container the user may have no name
        return f"cli:{os.getuid()}"

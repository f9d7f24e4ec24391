"""`farebox keys create | list | rotate | revoke`."""

import argparse
import asyncio
from datetime import UTC, datetime

from gateway.bootstrap import ACCOUNT_NAME, operator
from gateway.commands.common import add_database_flags, iso_time, open_database, show_rows
from gateway.commands.limits import add_limit_flags, limit_of, limit_text
from pricing.accounts import Account, Accounts
from pricing.database import Database
from pricing.errors import InvalidSetting, UnknownAccount, UnknownKey
from pricing.keys import Key, Keys, KeyTerms, NewKey, Role
from pricing.money import format_usd


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("keys", help="make, list, rotate and revoke keys")
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    create = actions.add_parser("create", help="make a key; it is shown once")
    create.add_argument("name")
    create.add_argument("--account", default=ACCOUNT_NAME, help=f"who pays. Default: {ACCOUNT_NAME}.")
    create.add_argument("--admin", action="store_true", help="a key for /admin, which can't generate")
    create.add_argument("--models", metavar="NAMES", help="the models it may use, separated by commas; default all")
    create.add_argument("--requests-per-minute", type=int)
    create.add_argument("--tokens-per-minute", type=int)
    create.add_argument("--concurrent-requests", type=int)
    create.add_argument("--expires", metavar="YYYY-MM-DD", help="the UTC day at whose beginning it ends")
    add_limit_flags(create)
    create.set_defaults(run=lambda options: asyncio.run(_create(options)))

    listing = actions.add_parser("list", help="keys, by the beginning of their secret")
    listing.add_argument("prefix", nargs="?", help="only keys that start like this")
    listing.add_argument("--all", action="store_true", help="revoked ones too")
    listing.set_defaults(run=lambda options: asyncio.run(_list(options)))

    rotate = actions.add_parser("rotate", help="a new secret for a key; the old one works a while longer")
    rotate.add_argument("prefix")
    rotate.add_argument("--grace-hours", type=float, default=24.0, help="how long the old one works. Default: 24.")
    rotate.set_defaults(run=lambda options: asyncio.run(_rotate(options)))

    revoke = actions.add_parser("revoke", help="end a key, within a second on every replica")
    revoke.add_argument("prefix")
    revoke.set_defaults(run=lambda options: asyncio.run(_revoke(options)))

    for action in (create, listing, rotate, revoke):
        add_database_flags(action)


async def _create(options: argparse.Namespace) -> int:
    terms = KeyTerms(
        limit=limit_of(options),
        models=frozenset(options.models.split(",")) if options.models else None,
        requests_per_minute=options.requests_per_minute,
        tokens_per_minute=options.tokens_per_minute,
        concurrent_requests=options.concurrent_requests,
        expires_at=_expiry(options.expires),
    )
    async with open_database(options) as database:
        account = await _account(database, options.account)
        role: Role = "admin" if options.admin else "user"
        created = await Keys(database).create(account.id, options.name, terms, actor=operator(), role=role)
    _show_secret(created, options)
    return 0


async def _list(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        keys = await Keys(database).list(prefix=options.prefix, include_revoked=options.all)
        balances = await Keys(database).balances([key.id for key in keys])
        accounts = {account.id: account.name for account in await Accounts(database).list()}
    rows = [
        {
            "key": key.prefix,
            "name": key.name,
            "account": accounts.get(key.account_id, str(key.account_id)),
            "role": key.role,
            "limit": limit_text(key.terms.limit),
            "spent_usd": format_usd(balances[key.id].spent_total),
            "expires": iso_time(key.terms.expires_at),
            "revoked": iso_time(key.revoked_at),
        }
        for key in keys
    ]
    show_rows(rows, options.json, "There are no keys. Make one: farebox keys create NAME")
    return 0


async def _rotate(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        key = await _one(database, options.prefix)
        rotated = await Keys(database).rotate(key.id, grace_ms=int(options.grace_hours * 3_600_000), actor=operator())
    _show_secret(rotated, options)
    return 0


async def _revoke(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        key = await _one(database, options.prefix)
        await Keys(database).revoke(key.id, actor=operator())
    print(f'The key "{key.name}" ({key.prefix}) is revoked.')
    return 0


def _show_secret(created: NewKey, options: argparse.Namespace) -> None:
    if options.json:
        show_rows([{"name": created.key.name, "key": created.secret, "prefix": created.key.prefix}], True, "")
    else:
        print(f'The key "{created.key.name}", shown this once:\n{created.secret}')


async def _account(database: Database, name: str) -> Account:
    account = await Accounts(database).find(name)
    if account is None:
        raise UnknownAccount(f'There is no account "{name}". Make it: farebox accounts create {name}')
    return account


async def _one(database: Database, prefix: str) -> Key:
    keys = await Keys(database).list(prefix=prefix)
    if len(keys) != 1:
        found = "No key starts" if not keys else f"{len(keys)} keys start"
        raise UnknownKey(f'{found} with "{prefix}". `farebox keys list` shows all.')
    return keys[0]


def _expiry(day: str | None) -> int | None:
    if day is None:
        return None
    try:
        moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
    except ValueError:
        raise InvalidSetting(f"--expires must be a day like 2027-01-31; got {day!r}.") from None
    return int(moment.timestamp()) * 1000

"""`farebox keys create | list | rotate | revoke`."""

import argparse
import asyncio
import difflib
from datetime import date

from gateway.commands.common import add_database_flags, iso_time, open_database, show_rows
from gateway.commands.limits import add_limit_flags, limits_given, limits_text
from gateway.commands.settings_flags import add_settings, settings_of
from gateway.models.catalog import ALL, load_catalog
from gateway.process.bootstrap import ACCOUNT_NAME, operator
from pricing.accounts import Account, Accounts
from pricing.clock import start_of, system_clock
from pricing.errors import UnknownAccount, UnknownKey
from pricing.keys import Key, Keys, KeyTerms, NewKey, Role
from pricing.money import format_usd
from pricing.text import checked_name
from pricing.tier import Tier
from storage.database import Database
from storage.errors import InvalidSetting
from storage.text import shorten

GRACE_HOURS_MAX = 90 * 24
SHOWN_MAX = 13  # a prefix in its quotes


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("keys", help="make, list, rotate and revoke keys")
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    create = actions.add_parser("create", help="make a key; it is shown once")
    create.add_argument("name")
    create.add_argument("--account", default=ACCOUNT_NAME, help=f"who pays. Default: {ACCOUNT_NAME}.")
    create.add_argument("--admin", action="store_true", help="a key for /admin, which can't generate")
    create.add_argument(
        "--models", dest="allowed", metavar="NAMES", help="the models it may use, separated by commas; default all"
    )
    create.add_argument(
        "--unknown-models",
        action="store_true",
        help="let --models name models that have no card here, for other gateways",
    )
    add_settings(create, ["cards"])
    create.add_argument("--requests-per-minute", type=int)
    create.add_argument("--tokens-per-minute", type=int)
    create.add_argument("--concurrent-requests", type=int)
    create.add_argument("--tier", choices=("default", "flex", "priority"), help="of requests that ask for none")
    create.add_argument("--expires", metavar="YYYY-MM-DD", help="the UTC day on which it stops working")
    add_limit_flags(create)
    create.set_defaults(run=lambda options: asyncio.run(_create(options)))

    listing = actions.add_parser("list", help="keys, by the beginning of their secret")
    listing.add_argument("prefix", nargs="?", help="only keys that begin with this: at least one character")
    listing.add_argument("--all", action="store_true", help="revoked ones too")
    listing.set_defaults(run=lambda options: asyncio.run(_list(options)))

    rotate = actions.add_parser("rotate", help="a new secret for a key; the old one works a while longer")
    _add_key(rotate)
    rotate.add_argument("--grace-hours", type=float, default=24.0, help="how long the old one works. Default: 24.")
    rotate.set_defaults(run=lambda options: asyncio.run(_rotate(options)))

    revoke = actions.add_parser("revoke", help="end a key, within a second on every replica")
    _add_key(revoke)
    revoke.set_defaults(run=lambda options: asyncio.run(_revoke(options)))

    for action in (create, listing, rotate, revoke):
        add_database_flags(action)


def _add_key(action: argparse.ArgumentParser) -> None:
    action.add_argument("prefix", help="the beginning of its secret, as long as `farebox keys list` shows it")
    action.add_argument("--name", help="the name of the key, if several keys begin with this")


async def _create(options: argparse.Namespace) -> int:
    terms = KeyTerms(
        limits=limits_given(options),
        models=_models(options),
        requests_per_minute=options.requests_per_minute,
        tokens_per_minute=options.tokens_per_minute,
        concurrent_requests=options.concurrent_requests,
        expires_at=_expiry(options.expires),
        tier=None if options.tier is None else Tier(options.tier),
    )
    async with open_database(options) as database:
        account = await _account(database, options.account)
        role: Role = "admin" if options.admin else "user"
        created = await Keys(database).create(account.id, options.name, terms, actor=operator(), role=role)
    _show_secret(created, options)
    return 0


async def _list(options: argparse.Namespace) -> int:
    if options.prefix == "":
        raise InvalidSetting("The prefix is empty; give the beginning of a key, or nothing for all keys.")
    async with open_database(options) as database:
        # Not ASCII: no key begins like this.
        asked = options.prefix is None or options.prefix.isascii()
        keys = await Keys(database).list(prefix=options.prefix, include_revoked=options.all) if asked else []
        balances = await Keys(database).balances([key.id for key in keys])
        accounts = {account.id: account.name for account in await Accounts(database).list()}
    rows = [
        {
            "key": key.prefix,
            "name": key.name,
            "account": accounts.get(key.account_id, str(key.account_id)),
            "role": key.role,
            "limit": limits_text(key.terms.limits),
            "spent_usd": format_usd(balances[key.id].spent_total),
            "expires": iso_time(key.terms.expires_at),
            "revoked": iso_time(key.revoked_at),
        }
        for key in keys
    ]
    show_rows(rows, options.json, "There are no keys. Make one: farebox keys create NAME")
    return 0


async def _rotate(options: argparse.Namespace) -> int:
    if not 0 <= options.grace_hours <= GRACE_HOURS_MAX:
        raise InvalidSetting(f"--grace-hours is {options.grace_hours:g}; it is from 0 to {GRACE_HOURS_MAX}.")
    grace_ms = int(options.grace_hours * 3_600_000)
    async with open_database(options) as database:
        key = await _one(database, options)
        rotated = await Keys(database).rotate(key.id, grace_ms=grace_ms, actor=operator())
    _show_secret(rotated, options)
    return 0


async def _revoke(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        key = await _one(database, options)
        await Keys(database).revoke(key.id, actor=operator())
    print(f'The key "{key.name}" ({key.prefix}) is revoked.')
    return 0


def _show_secret(created: NewKey, options: argparse.Namespace) -> None:
    if options.json:
        show_rows([{"name": created.key.name, "key": created.secret, "prefix": created.key.prefix}], True, "")
    else:
        print(f'The key "{created.key.name}", shown this once:\n{created.secret}')


async def _account(database: Database, name: str) -> Account:
    account = await Accounts(database).find(checked_name("name of an account", name))
    if account is None:
        raise UnknownAccount(f'There is no account "{name}". Make it: farebox accounts create {name}')
    return account


async def _one(database: Database, options: argparse.Namespace) -> Key:
    """The key that was named, and never one that is only near it. Raises UnknownKey."""
    prefix: str = options.prefix
    if not prefix:
        raise UnknownKey("The prefix is empty; give the beginning of the key as `farebox keys list` shows it.")
    begun = await Keys(database).list(prefix=prefix) if prefix.isascii() else []
    found = [key for key in begun if key.prefix == prefix and options.name in (None, key.name)]
    if len(found) == 1:
        return found[0]
    shown = shorten(prefix, SHOWN_MAX)  # it may be a whole secret
    if found:
        names = ", ".join(repr(key.name) for key in found[:10])
        raise UnknownKey(f"{len(found)} keys begin with {shown}; say which one with --name: {names}.")
    if begun and options.name is None:
        raise UnknownKey(f"{shown} is too short; give the whole prefix, as `farebox keys list` shows it.")
    raise UnknownKey(f"No such key is shown as {shown}. `farebox keys list` shows all.")


def _models(options: argparse.Namespace) -> frozenset[str] | None:
    """The names in --models, each of a card here unless --unknown-models is given. Raises InvalidSetting."""
    if options.allowed is None:
        return None
    names = [name.strip() for name in options.allowed.split(",")]
    if not all(names):
        raise InvalidSetting(f"--models is {shorten(options.allowed)}; give names of models, separated by commas.")
    if not options.unknown_models:
        settings = settings_of(options)
        known = load_catalog(settings.model_copy(update={"models": (ALL,)})).names + list(settings.models)
        for name in names:
            if name not in known or name == ALL:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else "`farebox cards list` shows all."
                raise InvalidSetting(
                    f"--models names {shorten(name)}, and no model card has that name. {hint} "
                    "--unknown-models takes it all the same."
                )
    return frozenset(names)


def _expiry(day: str | None) -> int | None:
    if day is None:
        return None
    try:
        ends = start_of(date.fromisoformat(day))
    except ValueError:
        raise InvalidSetting(f"--expires must be a day like 2027-01-31; got {shorten(day)}.") from None
    if ends <= system_clock():
        raise InvalidSetting(f"--expires is {day}, which has begun or passed in UTC; give a day that is to come.")
    return ends

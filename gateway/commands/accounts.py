"""`farebox accounts create | list | credit | limit | weight | suspend | resume`."""

import argparse
import asyncio

from gateway.commands.common import add_database_flags, iso_time, open_database, show_rows
from gateway.commands.limits import add_limit_flags, limits_given, limits_text
from gateway.process.bootstrap import operator
from pricing.accounts import Account, Accounts
from pricing.errors import UnknownAccount
from pricing.money import format_usd, parse_usd
from pricing.text import checked_name


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("accounts", help="who pays: credit and limits")
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    create = actions.add_parser("create", help="make an account, with a limit, prepaid credit, or neither")
    create.add_argument("name")
    create.add_argument("--prepaid", metavar="USD", help="spend no more than the credit added, starting with this")
    add_limit_flags(create)
    create.set_defaults(run=lambda options: asyncio.run(_create(options)))

    listing = actions.add_parser("list", help="accounts, with what they spent and have left")
    listing.set_defaults(run=lambda options: asyncio.run(_list(options)))

    credit = actions.add_parser("credit", help="add credit to a prepaid account")
    credit.add_argument("name")
    credit.add_argument("amount", metavar="USD")
    credit.add_argument("--reference", help="the payment's id: the same one adds its credit once only")
    credit.set_defaults(run=lambda options: asyncio.run(_credit(options)))

    limit = actions.add_parser("limit", help="replace an account's limits")
    limit.add_argument("name")
    limit.add_argument("--prepaid", metavar="USD", help="make it prepaid, with this credit")
    add_limit_flags(limit)
    limit.set_defaults(run=lambda options: asyncio.run(_limit(options)))

    weight = actions.add_parser("weight", help="set its share of an engine that many want")
    weight.add_argument("name")
    weight.add_argument("weight", type=int, help="100 is usual; 200 gets twice as many tokens")
    weight.set_defaults(run=lambda options: asyncio.run(_weight(options)))

    for name in ("suspend", "resume"):
        action = actions.add_parser(name, help=f"{name} all keys of an account")
        action.add_argument("name")
        action.set_defaults(run=lambda options, name=name: asyncio.run(_suspend(options, name == "suspend")))
        add_database_flags(action)
    for action in (create, listing, credit, limit, weight):
        add_database_flags(action)


async def _create(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        account = await Accounts(database).create(
            options.name, *limits_given(options, prepaid=options.prepaid), actor=operator()
        )
    print(f'The account "{account.name}" is made, limit: {limits_text(account.limits)}.')
    return 0


async def _list(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        accounts = await Accounts(database).list()
        balances = await Accounts(database).balances([account.id for account in accounts])
    rows = []
    for account in accounts:
        balance = balances[account.id]
        rows.append(
            {
                "account": account.name,
                "limit": limits_text(account.limits),
                "spent_usd": format_usd(balance.spent_total),
                "reserved_usd": format_usd(balance.reserved),
                "left_usd": None if balance.left is None else format_usd(balance.left),
                "weight": account.weight,
                "suspended": iso_time(account.suspended_at),
            }
        )
    show_rows(rows, options.json, "There are no accounts. Make one: farebox accounts create NAME")
    return 0


async def _credit(options: argparse.Namespace) -> int:
    amount = parse_usd(options.amount)
    async with open_database(options) as database:
        accounts = Accounts(database)
        account = await _find(accounts, options.name)
        balance = await accounts.add_credit(account.id, amount, actor=operator(), reference=options.reference)
    left = format_usd(balance.left) if balance.left is not None else "any amount"
    print(f'${format_usd(amount)} added; "{account.name}" has ${left} left.')
    return 0


async def _limit(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        accounts = Accounts(database)
        account = await _find(accounts, options.name)
        limits = limits_given(options, prepaid=options.prepaid)
        await accounts.set_limits(account.id, limits, actor=operator())
    print(f'The limit of "{account.name}" is now: {limits_text(limits)}.')
    return 0


async def _weight(options: argparse.Namespace) -> int:
    async with open_database(options) as database:
        accounts = Accounts(database)
        account = await _find(accounts, options.name)
        account = await accounts.set_weight(account.id, options.weight, actor=operator())
    print(f'"{account.name}" has a weight of {account.weight}.')
    return 0


async def _suspend(options: argparse.Namespace, suspend: bool) -> int:
    async with open_database(options) as database:
        accounts = Accounts(database)
        account = await _find(accounts, options.name)
        change = accounts.suspend if suspend else accounts.resume
        await change(account.id, actor=operator())
    print(f'"{account.name}" is {"suspended" if suspend else "active"}.')
    return 0


async def _find(accounts: Accounts, name: str) -> Account:
    account = await accounts.find(checked_name("name of an account", name))
    if account is None:
        raise UnknownAccount(f'There is no account "{name}". `farebox accounts list` shows all.')
    return account

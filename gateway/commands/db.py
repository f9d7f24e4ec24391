"""`farebox db upgrade | check`: the schema of a shared database is changed on purpose, never by starting a gateway."""

import argparse
import asyncio

from gateway.commands.settings_flags import add_settings, settings_of
from pricing.database import Database
from pricing.migrations import check, upgrade


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("db", help="the ledger's database")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, text in (
        ("upgrade", "bring the schema to this version's; safe to run twice, and from several machines"),
        ("check", "say whether this version can work with the schema"),
    ):
        action = actions.add_parser(name, help=text)
        add_settings(action, ["data_dir"])
        action.set_defaults(run=lambda options, name=name: asyncio.run(_run(options, name)))


async def _run(options: argparse.Namespace, name: str) -> int:
    settings = settings_of(options)
    if settings.embedded_database:
        settings.data_dir.expanduser().mkdir(parents=True, exist_ok=True)
    database = await Database.open(settings.database)
    try:
        if name == "upgrade":
            await upgrade(database)
        await check(database)
    finally:
        await database.close()
    print("The schema is up to date." if name == "upgrade" else "This version can work with the schema.")
    return 0

"""`farebox db upgrade | check`: the schema of a shared database is changed on purpose, never by starting a gateway."""

import argparse
import asyncio

from gateway.commands.settings_flags import add_settings, settings_of
from gateway.process.ledger_database import any_database
from storage.migrations import MIGRATION_TIMES, check, upgrade


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
    times = MIGRATION_TIMES if name == "upgrade" else None
    async with any_database(settings_of(options), times) as database:
        await (upgrade(database) if name == "upgrade" else check(database))
    print("The schema is up to date." if name == "upgrade" else "This version can work with the schema.")
    return 0

"""`farebox serve | keys | accounts | usage | catalog | db`."""

import argparse
import os
import sys
from collections.abc import Sequence

from engine.errors import EngineStartError
from gateway.catalog import CatalogError
from gateway.commands import accounts, catalog, db, keys, serve, usage
from gateway.settings import SettingsError
from pricing.errors import PricingError

COMMANDS = (serve, keys, accounts, usage, catalog, db)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. What an operator can mend ends with one sentence on stderr and exit status 2."""
    options = build_parser().parse_args(arguments)
    try:
        sys.exit(options.run(options))
    except (SettingsError, CatalogError, PricingError, EngineStartError, serve.ServeError) as error:
        print(f"farebox: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `farebox usage | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="farebox",
        description="An OpenAI-compatible serving gateway with the meter built in.",
        epilog="Every flag of `farebox serve` can be set as FAREBOX_<NAME> in the environment.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


if __name__ == "__main__":
    main()

"""`farebox serve | keys | accounts | usage | batches | cards | db`."""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from engine.errors import EngineStartError
from gateway.commands import accounts, batches, cards, db, keys, serve, usage
from gateway.models.catalog import CatalogError
from gateway.settings import SettingsError
from storage.errors import LedgerError

COMMANDS = (serve, keys, accounts, usage, batches, cards, db)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command. What an operator can mend ends with one sentence on stderr and exit status 2."""
    _print_whatever_comes()
    options = build_parser().parse_args(arguments)
    try:
        status = options.run(options)
        sys.stdout.flush()
        sys.exit(status)
    except (SettingsError, CatalogError, LedgerError, EngineStartError, serve.ServeError) as error:
        print(f"farebox: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `farebox usage | head`
        _discard_output()
        sys.exit(0)
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        print(f"farebox: {place}{error.strerror or error}.", file=sys.stderr)
        _discard_output()
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _print_whatever_comes() -> None:
    """A terminal of another encoding gets escapes, not an end in mid-table."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """What is left in the buffer would fail once more at the end."""
    with contextlib.suppress(OSError, ValueError):  # where it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="farebox",
        description="An OpenAI-compatible serving gateway with the meter built in.",
        epilog="Every flag of `farebox serve` can be set as FAREBOX_<NAME> in the environment.",
    )
    parser.add_argument("--version", action="version", version=f"farebox {version('farebox')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


if __name__ == "__main__":
    main()

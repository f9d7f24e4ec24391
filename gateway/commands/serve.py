"""`farebox serve`: its flags are the settings."""

import argparse

from gateway.commands.settings_flags import ENVIRONMENT_ONLY, add_settings, settings_of
from gateway.process.server import ServeError, run
from gateway.process.streams import own_streams
from gateway.settings import Settings, variable_of
from gateway.telemetry.logs import configure_logging

__all__ = ["ServeError", "add_to"]


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "serve",
        help="serve models",
        description="Serve models over HTTP. Secrets are read from the environment only: "
        + ", ".join(sorted(variable_of(name) for name in ENVIRONMENT_ONLY))
        + ".",
    )
    add_settings(parser, [name for name in Settings.model_fields if name not in ENVIRONMENT_ONLY])
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with own_streams() as streams:
        configure_logging(settings, stream=streams.err, mark_below=streams.mark)
        run(settings, streams)
    return 0

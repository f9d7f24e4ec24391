"""Settings as flags of a command."""

import argparse
import os

from gateway.settings import Settings, load_settings, variable_of

# Shorter to type, and what people try first.
ALIASES = {"models": ("--model",)}
# On the command line they would show in the process list.
ENVIRONMENT_ONLY = {"database_url", "bootstrap_key", "admin_key"}


def add_settings(parser: argparse.ArgumentParser, names: list[str]) -> None:
    """Flags for these settings, with their descriptions, variables and defaults."""
    for name in names:
        field = Settings.model_fields[name]
        default: object = field.get_default(call_default_factory=True)
        text = default if not isinstance(default, tuple) else ",".join(map(str, default))
        shown = f" Default: {text}." if default not in (None, (), {}) else ""
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            *ALIASES.get(name, ()),
            dest=name,
            action="append" if name in ALIASES else "store",
            metavar=name.upper(),
            help=f"{field.description}{shown} [{variable_of(name)}]".replace("%", "%%"),
        )


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of a command line: flags over environment."""
    flags = {name: getattr(options, name, None) for name in Settings.model_fields}
    flags = {name: ",".join(value) if isinstance(value, list) else value for name, value in flags.items()}
    return load_settings(os.environ, flags)

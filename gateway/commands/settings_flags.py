"""Settings as flags of a command."""

import argparse
import os

from gateway.settings import Settings, description_of, load_settings, variable_of

# Shorter to type, and what people try first.
ALIASES = {"models": ("--model",)}
# On the command line they would show in the process list.
ENVIRONMENT_ONLY = {"database_url", "bootstrap_key", "admin_key", "redis_url", "webhook_secret"}


def add_settings(parser: argparse.ArgumentParser, names: list[str]) -> None:
    """Flags for these settings, with their descriptions, variables and defaults."""
    for name in names:
        default = default_text(name)
        shown = f" Default: {default}." if default else ""
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            *ALIASES.get(name, ()),
            dest=name,
            action="append" if name in ALIASES else "store",
            metavar=name.upper(),
            help=f"{description_of(name)}{shown} [{variable_of(name)}]".replace("%", "%%"),
        )


def default_text(name: str) -> str:
    """A setting's default as one would write it; "" where there is none."""
    default: object = Settings.model_fields[name].get_default(call_default_factory=True)
    if default in (None, (), {}):
        return ""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of a command line: flags over environment."""
    flags = {name: getattr(options, name, None) for name in Settings.model_fields}
    flags = {name: ",".join(value) if isinstance(value, list) else value for name, value in flags.items()}
    return load_settings(os.environ, flags)

"""`farebox serve [MODEL]`: its flags are the settings, and what is to stand on the card of a model that has none."""

import argparse

from gateway.commands.model_flags import add_model_flags, derive, wishes_of
from gateway.commands.settings_flags import ENVIRONMENT_ONLY, add_settings, settings_of
from gateway.models.catalog import known_cards
from gateway.models.derived import Wishes
from gateway.process.server import ServeError, run
from gateway.process.streams import Streams, own_streams
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
    parser.add_argument(
        "served",
        nargs="?",
        metavar="MODEL",
        help="a hub id or a folder, for which a card is made from the model; or the name of a card. Default: what "
        "FAREBOX_MODELS names",
    )
    add_model_flags(parser)
    add_settings(parser, [name for name in Settings.model_fields if name not in ENVIRONMENT_ONLY])
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    with own_streams() as streams:
        configure_logging(settings, stream=streams.err, mark_below=streams.mark)
        run(_with_model(settings, options.served, wishes_of(options), streams), streams)
    return 0


def _with_model(settings: Settings, name: str | None, wishes: Wishes, streams: Streams) -> Settings:
    """The settings with the model of the command line: a card by its name, or one that is made now."""
    others = settings.models if "models" in settings.model_fields_set else ()
    if name is None or name in known_cards(settings)[0]:
        if wishes != Wishes():
            what = "no MODEL is named" if name is None else f"{name} has a model card"
            raise ServeError(
                f"--price, --name and the flags beside them are for a model without a card, and {what}. Write a card "
                "of your own: `farebox cards new MODEL`."
            )
        return settings if name is None else settings.model_copy(update={"models": (name, *others)})
    card, told = derive(name, settings, wishes)
    streams.say(f"{told}\n")
    fields = card.model_dump(exclude_none=True, exclude_defaults=True, mode="json")
    return settings.model_copy(update={"card": fields})

"""`farebox catalog list`: the model cards, what they ask for, and whether they are well-formed."""

import argparse

from gateway.catalog import load_catalog
from gateway.commands.common import show_rows
from gateway.commands.settings_flags import add_settings, settings_of


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("catalog", help="the model cards")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    action = actions.add_parser("list", help="every card, or those of --model; prices in USD per million tokens")
    add_settings(action, ["models", "cards"])
    action.add_argument("--json", action="store_true", help="print JSON instead of a table")
    action.set_defaults(run=_list)


def _list(options: argparse.Namespace) -> int:
    options.models = options.models or "all"
    rows = [
        {
            "model": model.name,
            "source": model.card.source,
            "precision": model.card.precision,
            "context": model.context_length,
            "input": model.card.price.input,
            "output": model.card.price.output,
            "profile": model.profile.name,
        }
        for model in load_catalog(settings_of(options))
    ]
    show_rows(rows, options.json, "There are no model cards.")
    return 0

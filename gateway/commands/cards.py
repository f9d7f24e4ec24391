"""`farebox cards list | new | check`: the model cards, what they ask for, and what fits on which GPU."""

import argparse
import sys
from pathlib import Path

from engine.errors import EngineStartError
from engine.sizing import FP8_GPUS, GIB, GPU_BYTES, Fit, batch, fit, geometry_of, gpus_asked_for
from gateway.commands.common import show_rows
from gateway.commands.model_flags import add_model_flags, derive, wishes_of
from gateway.commands.settings_flags import add_settings, settings_of
from gateway.models.catalog import ALL, CatalogError, load_catalog, read_cards
from gateway.models.derived import written
from gateway.models.model import Model

GPUS_MAX = 1024


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("cards", aliases=["catalog"], help="the model cards")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    action = actions.add_parser("list", help="every card, or those of --model; prices in USD per million tokens")
    add_settings(action, ["models", "cards"])
    action.add_argument("--json", action="store_true", help="print JSON instead of a table")
    action.set_defaults(run=_list)
    new = actions.add_parser("new", help="write the cards of models, as `farebox serve MODEL` would make them")
    new.add_argument("served", nargs="+", metavar="MODEL", help="a hub id or a folder")
    add_model_flags(new)
    add_settings(new, ["precision", "engine"])
    new.set_defaults(run=_new)
    check = actions.add_parser("check", help="whether cards are right, and how much GPU memory they take")
    check.add_argument("checked", metavar="CARD", help="the name of a model card, or a file of them")
    check.add_argument("--gpu", choices=sorted(GPU_BYTES), default="H100", help="the type of GPU. Default: H100.")
    check.add_argument("--gpus", type=int, help="how many; default: what the card's parallel sizes ask for")
    check.add_argument("--config", type=Path, metavar="FILE", help="the config.json of weights that aren't here")
    add_settings(check, ["cards", "source", "precision", "engine"])
    check.add_argument("--json", action="store_true", help="print JSON instead of sentences")
    check.set_defaults(run=_check)


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


def _new(options: argparse.Namespace) -> int:
    """The cards go to stdout, and what was found to stderr."""
    settings, wishes = settings_of(options), wishes_of(options)
    if len(options.served) > 1 and wishes.name is not None:
        raise CatalogError(f"--name is one name, and there are {len(options.served)} models; leave it out.")
    for source in options.served:
        card, told = derive(source, settings, wishes)
        # In a file of cards a path is relative to the file, which may come to stand elsewhere.
        folder = Path(source).expanduser()
        placed = card.model_copy(update={"source": str(folder.resolve())}) if folder.is_dir() else card
        print(f"{told}\n", file=sys.stderr)
        print(written(placed))
    return 0


def _check(options: argparse.Namespace) -> int:
    """Exit status 1 where one request of a card's full context has no room."""
    options.models = None
    settings = settings_of(options)
    if options.checked == ALL:
        raise CatalogError("`farebox cards check` looks at one card or a file; `farebox cards list` shows the names.")
    path = Path(options.checked)
    if path.suffix == ".toml" or path.is_file():
        names = tuple(card.name for card in read_cards(path))
        settings = settings.model_copy(update={"models": names, "cards": (*settings.cards, path)})
    else:
        settings = settings.model_copy(update={"models": (options.checked,)})
    found = [(model, _fit(model, options)) for model in load_catalog(settings)]
    show_rows([_row(model, options, fit) for model, fit in found], options.json, "The file has no model cards.")
    if not options.json:
        for model, fit in found:
            named = f"{model.name}: " if len(found) > 1 else ""
            print(named + _verdict(model, fit))
    return 0 if all(fit is None or fit.fits for _, fit in found) else 1


def _fit(model: Model, options: argparse.Namespace) -> Fit | None:
    """None where the weights' shape isn't known here: then only the card itself is checked."""
    spec = model.engine
    if spec.precision == "fp8" and options.gpu not in FP8_GPUS:
        raise EngineStartError(
            f"{options.gpu} has no FP8; choose another GPU ({', '.join(sorted(FP8_GPUS))}) or --precision bf16."
        )
    gpus = gpus_asked_for(spec) if options.gpus is None else options.gpus
    if not 1 <= gpus <= GPUS_MAX:
        where = "The card's parallel sizes ask for" if options.gpus is None else "--gpus is"
        raise EngineStartError(f"{where} {gpus}; the number of GPUs is from 1 to {GPUS_MAX}.")
    try:
        geometry = geometry_of(spec.source, options.config)
    except EngineStartError:
        if Path(options.checked).suffix != ".toml":
            raise
        return None
    return fit(spec, geometry, GPU_BYTES[options.gpu], gpus)


def _row(model: Model, options: argparse.Namespace, found: Fit | None) -> dict[str, object]:
    step = batch(model.engine, options.gpu)
    gpus = gpus_asked_for(model.engine) if options.gpus is None else options.gpus
    return {
        "model": model.name,
        "gpus": f"{gpus} x {options.gpu}",
        "weights_gib_per_gpu": None if found is None else round(found.weight_bytes / GIB, 2),
        "reserve_gib_per_gpu": None if found is None else round(found.reserve_bytes / GIB, 2),
        "kv_cache_gib_per_gpu": None if found is None else round(found.kv_bytes / GIB, 2),
        "tokens": None if found is None else found.tokens,
        "full_contexts": None if found is None else round(found.tokens / found.context_length, 1),
        "max_num_batched_tokens": step.tokens,
        "max_num_seqs": step.sequences,
    }


def _verdict(model: Model, found: Fit | None) -> str:
    if found is None:
        return "The card is right. The shape of its weights isn't known here, so nothing is said of memory."
    if found.fits:
        return f"It fits: a request may use all {model.context_length:,} tokens of the context."
    if found.tokens == 0:
        return "It doesn't fit: the weights alone take more. Use more or larger GPUs, or --precision fp8."
    return (
        f"The weights fit, a full context doesn't: {found.tokens:,} of {model.context_length:,} tokens. Lower the "
        'card\'s context_length, use more GPUs, or an FP8 KV cache: --engine \'{"kv_cache_dtype": "fp8"}\'.'
    )

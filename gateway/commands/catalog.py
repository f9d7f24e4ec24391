"""`farebox catalog list | check`: the model cards, what they ask for, and what fits on which GPU."""

import argparse
from pathlib import Path

from engine.errors import EngineStartError
from engine.sizing import FP8_GPUS, GIB, GPU_BYTES, batch, fit, geometry_of, gpus_asked_for
from gateway.commands.common import show_rows
from gateway.commands.settings_flags import add_settings, settings_of
from gateway.models.catalog import ALL, CatalogError, load_catalog
from gateway.models.model import Model

GPUS_MAX = 1024


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("catalog", help="the model cards")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    action = actions.add_parser("list", help="every card, or those of --model; prices in USD per million tokens")
    add_settings(action, ["models", "cards"])
    action.add_argument("--json", action="store_true", help="print JSON instead of a table")
    action.set_defaults(run=_list)
    check = actions.add_parser("check", help="how much GPU memory a card takes, before anything is loaded")
    check.add_argument("card", help="the name of a model card")
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


def _check(options: argparse.Namespace) -> int:
    """Exit status 1 where one request of the card's full context has no room."""
    options.models = None
    settings = settings_of(options)
    if options.card == ALL:
        raise CatalogError("`farebox catalog check` looks at one card; `farebox catalog list` shows their names.")
    [model] = load_catalog(settings.model_copy(update={"models": (options.card,)}))
    spec = model.engine
    if spec.precision == "fp8" and options.gpu not in FP8_GPUS:
        raise EngineStartError(
            f"{options.gpu} has no FP8; choose another GPU ({', '.join(sorted(FP8_GPUS))}) or --precision bf16."
        )
    gpus = gpus_asked_for(spec) if options.gpus is None else options.gpus
    if not 1 <= gpus <= GPUS_MAX:
        where = "The card's parallel sizes ask for" if options.gpus is None else "--gpus is"
        raise EngineStartError(f"{where} {gpus}; the number of GPUs is from 1 to {GPUS_MAX}.")
    found = fit(spec, geometry_of(spec.source, options.config), GPU_BYTES[options.gpu], gpus)
    step = batch(spec, options.gpu)
    row = {
        "model": model.name,
        "gpus": f"{gpus} x {options.gpu}",
        "weights_gib_per_gpu": round(found.weight_bytes / GIB, 2),
        "reserve_gib_per_gpu": round(found.reserve_bytes / GIB, 2),
        "kv_cache_gib_per_gpu": round(found.kv_bytes / GIB, 2),
        "tokens": found.tokens,
        "full_contexts": round(found.tokens / found.context_length, 1),
        "max_num_batched_tokens": step.tokens,
        "max_num_seqs": step.sequences,
    }
    show_rows([row], options.json, "")
    if not options.json:
        print(_verdict(model, found.fits, found.tokens))
    return 0 if found.fits else 1


def _verdict(model: Model, fits: bool, tokens: int) -> str:
    if fits:
        return f"It fits: a request may use all {model.context_length:,} tokens of the context."
    if tokens == 0:
        return "It doesn't fit: the weights alone take more. Use more or larger GPUs, or --precision fp8."
    return (
        f"The weights fit, a full context doesn't: {tokens:,} of {model.context_length:,} tokens. Lower the card's "
        'context_length, use more GPUs, or an FP8 KV cache: --engine \'{"kv_cache_dtype": "fp8"}\'.'
    )

"""How the models are doing, live: read from the gateway's own metrics, as Prometheus would, when somebody looks."""

from collections import defaultdict
from collections.abc import Iterable
from typing import TypedDict

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from gateway.console.visits import Visit
from gateway.models.catalog import Catalog

KV_CACHE = "vllm:kv_cache_usage_perc"


class EngineReading(TypedDict):
    """One model now. `completion_tokens` and `prompt_tokens` grow: two readings make a rate. `kv_cache` is from 0 to 1,
    None where the engine doesn't tell."""

    model: str
    state: str
    running: int
    waiting: int
    kv_cache: float | None
    prompt_tokens: int
    completion_tokens: int
    lag_seconds: float


async def engines(visit: Visit) -> Response:
    return visit.page("engines.html", readings=await readings(visit), problems=visit.gateway.problems())


async def engines_json(visit: Visit) -> Response:
    return JSONResponse({"engines": await readings(visit)})


async def readings(visit: Visit) -> list[EngineReading]:
    """One for each model that is served. Of several worker processes, all together."""
    gateway = visit.gateway
    page = gateway.metrics.page().decode()
    values = await run_in_threadpool(lambda: collect(text_string_to_metric_families(page)))  # streams go on meanwhile
    return [
        {
            "model": model.name,
            "state": gateway.fleet.states[model.name].value,
            "running": int(values["farebox_requests_running", model.name]),
            "waiting": int(values["farebox_requests_waiting", model.name]),
            "kv_cache": _kv_cache(values, gateway.catalog, model.engine.source),
            "prompt_tokens": int(
                values["farebox_tokens_total prompt", model.name] + values["farebox_tokens_total cached", model.name]
            ),
            "completion_tokens": int(values["farebox_tokens_total completion", model.name]),
            "lag_seconds": gateway.fleet.lags[model.name],
        }
        for model in visit.principal.models(gateway.catalog)
    ]


def collect(families: Iterable[Metric]) -> dict[tuple[str, str], float]:
    """By a metric's name (and the tokens' kind) and the model; 0 for what there isn't."""
    values: dict[tuple[str, str], float] = defaultdict(float)
    for family in families:
        for sample in family.samples:
            if (model := sample.labels.get("model") or sample.labels.get("model_name")) is not None:
                kind = sample.labels.get("kind")
                values[f"{sample.name} {kind}" if kind else sample.name, model] += sample.value
    return values


def _kv_cache(values: dict[tuple[str, str], float], catalog: Catalog, source: str) -> float | None:
    """vLLM calls a model by its weights; where there is one engine, it is that."""
    if (KV_CACHE, source) in values:
        return values[KV_CACHE, source]
    told = [value for (name, _), value in values.items() if name == KV_CACHE]
    return told[0] if len(told) == 1 and len(catalog.engine_specs) == 1 else None

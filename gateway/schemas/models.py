"""The models as clients see them: OpenAI's list, and DeepInfra's catalog with the schemas of each model."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from engine.facts import ModelTask
from gateway.models.life import timestamp, unix
from gateway.models.model import Model
from gateway.models.tiers import offered
from gateway.protocol.body import RequestBody
from gateway.protocol.chat import ChatBody
from gateway.protocol.checks import with_ranges
from gateway.protocol.embeddings import EmbeddingsBody
from gateway.protocol.native import NativeBody
from gateway.protocol.schema import DEFINITIONS, JSONSchema, implies, schema_of
from gateway.protocol.scoring import RerankBody
from gateway.schemas import openai as answers
from gateway.schemas.embeddings import Embeddings
from gateway.schemas.scoring import Ranking
from pricing.price import Price
from pricing.tier import Tier

PICODOLLARS_PER_CENT = 10**10
TIERS_TEXT = "How soon it is begun, at what price. `auto` is the key's own tier, or `default`; the answer names it."


class Pricing(TypedDict):
    """US dollars per million tokens."""

    input_tokens: float
    output_tokens: float
    cache_read_tokens: float


class ModelMetadata(TypedDict):
    """Lengths are in tokens; `max_tokens` is how many are generated where a request doesn't say. `tiers` has the price
    of each `service_tier`, and that of batches.

    `deprecated` is the day from which the name is, `sunset` the day from which it answers 404, as ISO 8601 has them.
    """

    description: str
    context_length: int
    max_tokens: int
    pricing: Pricing
    tiers: dict[Tier, Pricing]
    tags: list[str]
    deprecated: NotRequired[str]
    sunset: NotRequired[str]
    replaced_by: NotRequired[str]


class ModelCard(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    metadata: ModelMetadata


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[ModelCard]


class AnthropicModel(TypedDict):
    """A model as Anthropic's clients read it. Lengths are in tokens; `max_tokens` is how many are generated where a
    request doesn't say. `created_at` is when the gateway started."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active", "deprecated"]
    max_input_tokens: int | None
    max_tokens: int
    capabilities: None
    deprecated_at: str | None
    retires_at: str | None
    line: None


class AnthropicModelList(TypedDict):
    """One page: `has_more` says whether there are further ones in its direction."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


class TokenPricing(TypedDict):
    """`rate_per_input_token_cached` is the price of a cached prompt token as a part of `cents_per_input_token`."""

    type: Literal["tokens"]
    cents_per_input_token: float
    cents_per_output_token: float
    rate_per_input_token_cached: float


Kind = Literal["text-generation", "embeddings", "reranker"]
KINDS: Mapping[ModelTask, Kind] = {"generate": "text-generation", "embed": "embeddings", "score": "reranker"}


class CatalogEntry(TypedDict):
    """A model as DeepInfra's catalog has it. `max_tokens` is the context's length; `quantization` the precision.

    `deprecated` is from when on, in seconds since 1970.
    """

    model_name: str
    type: Kind
    reported_type: Kind
    description: str
    tags: list[str]
    pricing: TokenPricing
    max_tokens: int
    default_max_tokens: int
    quantization: str
    deprecated: int | None
    replaced_by: str | None
    private: Literal[0]


class RouteSchemas(TypedDict):
    """JSON Schemas of what `POST path` takes, of its answer, and of each event where it is streamed."""

    path: str
    input: dict[str, Any]
    output: dict[str, Any]
    streaming: NotRequired[dict[str, Any]]


class ModelSchemas(TypedDict):
    """`native` is there for models that write text."""

    openai: RouteSchemas
    native: NotRequired[RouteSchemas]


class CatalogModel(CatalogEntry):
    schemas: ModelSchemas


def anthropic_model(model: Model, created: int) -> AnthropicModel:
    card = model.card
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active" if card.deprecated is None else "deprecated",
        "max_input_tokens": card.context_length,
        "max_tokens": card.default_max_tokens,
        "capabilities": None,
        "deprecated_at": None if card.deprecated is None else timestamp(card.deprecated),
        "retires_at": None if card.sunset is None else timestamp(card.sunset),
        "line": None,
    }


def model_card(model: Model, created: int) -> ModelCard:
    """OpenAI's model object, with DeepInfra's `metadata`."""
    card = model.card
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": model.name.partition("/")[0],
        "root": model.alias_of or model.base or model.name,
        "parent": model.base,
        "metadata": {
            "description": card.description,
            "context_length": card.context_length,
            "max_tokens": card.default_max_tokens,
            "pricing": _per_million(model.price),
            "tiers": {tier: _per_million(price) for tier, price in model.prices.items()},
            "tags": card.tags,
            **card.told(),
        },
    }


def catalog_entry(model: Model) -> CatalogEntry:
    card, price = model.card, model.price
    kind = KINDS[card.task]
    return {
        "model_name": model.name,
        "type": kind,
        "reported_type": kind,
        "description": card.description,
        "tags": card.tags,
        "pricing": {
            "type": "tokens",
            "cents_per_input_token": price.input / PICODOLLARS_PER_CENT,
            "cents_per_output_token": price.output / PICODOLLARS_PER_CENT,
            "rate_per_input_token_cached": price.cached_input / price.input if price.input else 0.0,
        },
        "max_tokens": card.context_length,
        "default_max_tokens": card.default_max_tokens,
        "quantization": model.engine.precision,
        "deprecated": None if card.deprecated is None else unix(card.deprecated),
        "replaced_by": card.replaced_by,
        "private": 0,
    }


def catalog_model(model: Model) -> CatalogModel:
    """With the schemas that the checks of this model are made from."""
    schemas = {"generate": _generating, "embed": _embedding, "score": _scoring}
    return {**catalog_entry(model), "schemas": schemas[model.card.task](model)}


def _embedding(model: Model) -> ModelSchemas:
    return {
        "openai": {
            "path": "/v1/openai/embeddings",
            "input": _named(body_schema(EmbeddingsBody, model), model),
            "output": schema_of(Embeddings),
        }
    }


def _scoring(model: Model) -> ModelSchemas:
    return {
        "openai": {
            "path": "/v1/openai/rerank",
            "input": _named(body_schema(RerankBody, model), model),
            "output": schema_of(Ranking),
        }
    }


def _generating(model: Model) -> ModelSchemas:
    return {
        "openai": {
            "path": "/v1/openai/chat/completions",
            "input": _named(body_schema(ChatBody, model), model),
            "output": schema_of(answers.ChatCompletion),
            "streaming": schema_of(answers.ChatChunk),
        },
        "native": {
            "path": f"/v1/inference/{model.name}",
            "input": body_schema(NativeBody, model),
            "output": schema_of(answers.Inference),
            "streaming": schema_of(answers.InferenceEvent),
        },
    }


def body_schema(body: type[RequestBody], model: Model, ref_template: str = DEFINITIONS) -> JSONSchema:
    """What this model takes: its profile's ranges, its card's default length, and tools where it can call them."""
    schema = schema_of(with_ranges(body, model.profile), ref_template)
    properties = schema["properties"]
    if "max_tokens" in properties:
        properties["max_tokens"]["default"] = model.card.default_max_tokens
    if "service_tier" in properties:
        properties["service_tier"] = {"enum": [*offered(model.prices), None], "description": TIERS_TEXT}
    for name in sorted(model.profile.lacks(body.ROUTE)):
        properties[name] = {"type": "null", "description": "This model's page has no such parameter."}
    if "tools" in properties and model.card.tool_call_parser is None:
        some: JSONSchema = {"type": "array", "minItems": 1}
        none: JSONSchema = {"tool_choice": body.NO_CALLS} if "tool_choice" in properties else {"tools": {"maxItems": 0}}
        schema["allOf"] = [*schema["allOf"], implies({"tools": some}, none)]
    return schema


def _named(schema: JSONSchema, model: Model) -> JSONSchema:
    schema["properties"]["model"] = {**schema["properties"]["model"], "const": model.name}
    return schema


def _per_million(price: Price) -> Pricing:
    """A picodollar per token is a microdollar per million tokens."""
    return {
        "input_tokens": price.input / 10**6,
        "output_tokens": price.output / 10**6,
        "cache_read_tokens": price.cached_input / 10**6,
    }

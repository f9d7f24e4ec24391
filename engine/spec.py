"""Which weights an engine loads and how, and what a model's files say of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.adapters import Adapter
from engine.conversations import JSONValue
from engine.grammar.tried import GrammarLimits
from engine.tokenizing import TokenizingLimits

Precision = Literal["fp8", "fp16", "bf16", "auto"]
ModelTask = Literal["generate", "embed", "score"]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which weights to load and how. Model cards with equal specs share one engine.

    `source` is a folder or a hub id; `context_length` is in tokens; with `fit_context` it may be less, where the memory
    doesn't hold the weights' own; `options` are fields of vLLM's `AsyncEngineArgs`, checked at start; `grammars` bounds
    what clients' schemas may cost; `task` is what the weights do: write text, make embeddings, or score pairs.
    `adapters` are there at once.
    """

    source: str
    precision: Precision = "auto"
    context_length: int | None = None
    options: Mapping[str, JSONValue] = field(default_factory=dict)
    grammars: GrammarLimits = field(default_factory=GrammarLimits)
    adapters: tuple[Adapter, ...] = ()
    tokenizing: TokenizingLimits = field(default_factory=TokenizingLimits)
    fit_context: bool = False
    task: ModelTask = "generate"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model's files say of it. `chats` says whether it has a chat template, and the parsers are vLLM's that fit
    its family."""

    task: ModelTask
    context_length: int
    chats: bool = False
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None

"""What Farebox asks of an engine: render a prompt, generate tokens, say how it is.

The gateway knows engines only through this file and `engine.errors`. `engine.embedded` implements it with vLLM in this
process, `engine.scripted` with a script, for the faults that a real engine can't be asked for.
"""

import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

from engine.adapters import Adapter, TakesAdapters
from engine.conversations import ChatFormat as ChatFormat
from engine.conversations import Conversation as Conversation
from engine.conversations import JSONValue as JSONValue
from engine.conversations import ResponseFormat as ResponseFormat
from engine.facts import ModelTask as ModelTask
from engine.grammar.tried import GrammarLimits
from engine.load import EngineLoad
from engine.tokenizing import TokenizingLimits
from engine.tokens import TokenLogprobs, Vocabulary

Precision = Literal["fp8", "fp16", "bf16", "auto"]
FinishReason = Literal["stop", "length", "tool_calls", "error"]


THINKING_BUDGET = "thinking.budget_tokens"  # in `Prompt.left_out`, where the engine can't end a model's thinking

# Whom the current task works for, by any name: clients take turns.
WORKS_FOR: ContextVar[str] = ContextVar("client", default="")


class EngineState(enum.Enum):
    """Where an engine is in its life; `READY` means that it has generated a token."""

    STARTING = "starting"
    READY = "ready"
    DEAD = "dead"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which weights to load and how. Model cards with equal specs share one engine.

    `source` is a folder or a hub id; `context_length` is in tokens; with `fit_context` it may be less, where the memory
    doesn't hold the weights' own; `options` are fields of vLLM's `AsyncEngineArgs`, checked at start; `grammars` bounds
    what clients' schemas may cost; `adapters` are there at once; `task` is what the weights do: write text, make
    embeddings, or score pairs.
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
class Prompt:
    """A rendered prompt: its exact length in tokens is known before anything is generated.

    `handle` belongs to the engine that rendered it and carries what that engine needs to generate and parse.
    `left_out` names the fields of the request that the answer won't be held to, such as a keyword in the schema of a
    function that isn't `strict`.
    """

    tokens: int
    handle: object
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. Every value has been checked against the model's parameter profile.

    `top_k` 0 means off; `logprobs` is the number of alternatives per token (0: the chosen token only), `None` off;
    `prompt_logprobs` is the same of the prompt's tokens, of which none then comes from the prefix cache; `logit_bias`
    maps token ids to biases; `more` holds parameters that only the engine knows, by its names.
    """

    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, max_tokens: int, values: Mapping[str, Any]) -> "Sampling":
        """From values by their names here, or by the engine's."""
        own = {name: value for name, value in values.items() if name in _OWN}
        if "stop" in own:
            own["stop"] = tuple(own["stop"])
        return cls(max_tokens, **own, more={name: value for name, value in values.items() if name not in _OWN})


_OWN = frozenset(one.name for one in fields(Sampling)) - {"max_tokens", "more"}


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request to the engine. `trace_headers` carry the W3C trace context, if any; requests with different
    `cache_salt`s share no prefix cache. The `adapter` must have been loaded. Of those that wait, the one with the
    lowest `priority` is next, and the highest is the first to give up its place; `began` is called once, when the
    engine has worked on the prompt.

    Without `stream` there is one Delta per choice, when all choices are done: nobody is woken per token, and tool
    calls are parsed from the whole text. `Generation.counts` moves on with every token either way.
    """

    request_id: str
    prompt: Prompt
    sampling: Sampling
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    stream: bool = True
    cache_salt: str | None = None
    priority: int = 0
    began: Callable[[], None] | None = None
    adapter: Adapter | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """One prompt to be embedded; `dimensions` asks for a shorter vector than the model's own.

    Where the engine scores, the prompt is a pair, and the vector its one score.
    """

    request_id: str
    prompt: Prompt
    dimensions: int | None = None
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call: `id` and `name` come once, `arguments` is appended."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(slots=True)
class Delta:
    """What one choice gained since its last delta. Several tokens are merged when the reader is slow.

    `completion_tokens` and `reasoning_tokens` are totals of this choice so far, as the engine counts them (a stop
    token counts); `cached_tokens` is how much of the prompt came from the prefix cache. `prompt_logprobs` come with the
    first delta of a choice, where they were asked for: those of the prompt's tokens after the first, which has none.
    """

    index: int
    text: str
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: Collection[TokenLogprobs] | None = None
    prompt_logprobs: Collection[TokenLogprobs] | None = None
    embedding: Sequence[float] | None = None  # all that there is, where the model embeds


class Generation(Protocol):
    """A running request: iterate over its deltas, as its one reader; `aclose` stops the engine's work on it.

    `counts` may be read at any time, without awaiting, and after `aclose`: it covers every token that the engine
    has handed over, whether it has been read or not, since a token generated is a token charged.
    """

    @property
    def counts(self) -> "TokenCounts": ...

    def __aiter__(self) -> "Generation": ...

    async def __anext__(self) -> Delta:
        """Raises GenerationFailed or EngineDead, after the deltas that came before."""

    async def forward(self, take: Callable[[Delta], bool]) -> None:
        """Hand each delta to `take` when it is there, until the end or until `take` says False; then iterate on.

        An engine may call `take` in its own turn of the event loop, so that no task is woken for a token. Raises as
        `__anext__` does, or what `take` raises.
        """
        async for delta in self:
            if not take(delta):
                return

    async def aclose(self) -> None:
        """Abort if unfinished. Idempotent, and safe to call while the surrounding task is being cancelled."""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Totals over all choices of a request. `cached` is a part of `prompt`, `reasoning` one of `completion`."""

    prompt: int
    cached: int = 0
    completion: int = 0
    reasoning: int = 0


class Renderer(Protocol):
    """Turns conversations and texts into prompts, in the format of one model card."""

    @property
    def chats(self) -> bool:
        """Whether it can: a model without a chat template only goes on from texts."""

    async def chat(self, conversation: Conversation) -> Prompt:
        """Raises PromptError or UnsupportedFeature. Doesn't check the context's length: the gateway does."""

    async def text(
        self,
        text: str,
        response_format: ResponseFormat | None = None,
        param: str = "prompt",
        special_tokens: bool = True,
    ) -> Prompt:
        """The text as it is, with the tokenizer's special tokens in front (a BOS, as vLLM's completions do) or without.

        Raises PromptError about the field `param`.
        """

    async def pair(self, query: str, document: str, param: str) -> Prompt:
        """What an engine that scores is asked, as the model was taught. Raises PromptError about the field `param`."""

    def token_ids(self, ids: Sequence[int], param: str = "prompt") -> Prompt:
        """Raises PromptError about the field `param` if an id is outside the vocabulary."""

    def prompt_text(self, prompt: Prompt) -> str:
        """The prompt decoded, for `echo`."""

    def prompt_ids(self, prompt: Prompt) -> Sequence[int]:
        """The prompt's tokens."""

    def token_names(self, ids: Sequence[int]) -> list[str]:
        """As they stand in the vocabulary."""

    def decoded(self, prompt: Prompt) -> str:
        """All of its tokens as text, special ones too."""


class Engine(TakesAdapters, Protocol):
    """One set of weights, batched."""

    @property
    def spec(self) -> EngineSpec: ...

    @property
    def state(self) -> EngineState: ...

    @property
    def context_length(self) -> int:
        """In tokens, prompt and completion together. Known once started."""

    @property
    def has_room(self) -> bool:
        """Whether no request waits for others to end before the engine works on it, as far as it is known now."""

    @property
    def load(self) -> EngineLoad:
        """As far as it is known now. Known once started."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Known once started."""

    @property
    def lag_seconds(self) -> float:
        """How long ago the engine made what it hands over now: more than a moment where its reader is too slow."""

    async def start(self) -> None:
        """Loads the weights and generates a token. Raises EngineStartError."""

    async def stop(self) -> None:
        """Ends the engine and its processes. Idempotent."""

    def renderer(self, chat_format: ChatFormat) -> Renderer:
        """Raises EngineStartError if a parser is unknown."""

    async def generate(self, request: GenerationRequest) -> Generation:
        """Admits the request. Raises EngineOverloaded, EngineDead, PromptError; the Generation, while it is
        iterated, GenerationFailed or EngineDead."""

    async def embed(self, request: EmbeddingRequest) -> Generation:
        """One Delta with the embedding or the score, as `spec.task` has it; no engine that generates is asked.

        Raises as `generate` does.
        """

    async def check(self) -> None:
        """Raises EngineDead when the engine is gone."""

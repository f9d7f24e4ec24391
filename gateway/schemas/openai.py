"""The shapes of what clients get: encoders return them, and the documents show them.

Nothing is validated with them at run time; a test holds real answers to them, with no field more.
"""

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from engine.base import FinishReason

InferenceStatusName = Literal["queued", "succeeded", "failed"]
ServiceTier = Literal["default", "flex", "priority", "batch"]


class ErrorFields(TypedDict):
    """`param` names the field that is wrong; `code` is stable, `message` is for people."""

    message: str
    type: str
    param: str | None
    code: str


class Error(TypedDict):
    """The one shape of every error. `detail` repeats the message, for native clients."""

    error: ErrorFields
    detail: str


class PromptTokensDetails(TypedDict):
    cached_tokens: int


class CompletionTokensDetails(TypedDict):
    reasoning_tokens: int


class Usage(TypedDict):
    """The engine's counts. `estimated_cost` is what was charged, in US dollars."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
    estimated_cost: float


class TopLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    content: list[ChatLogprob]


class FunctionCalled(TypedDict):
    """`arguments` is JSON as the model wrote it: it may not fit the function's schema."""

    name: str
    arguments: str


class ToolCalled(TypedDict):
    id: str
    type: Literal["function"]
    function: FunctionCalled


class CustomCalled(TypedDict):
    name: str
    input: str


class CustomToolCalled(TypedDict):
    """A call of a custom tool, whose input is a text."""

    id: str
    type: Literal["custom"]
    custom: CustomCalled


class ChatMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCalled | CustomToolCalled]]


class ChatChoice(TypedDict):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    service_tier: ServiceTier
    choices: list[ChatChoice]
    usage: Usage


class FunctionDelta(TypedDict):
    name: NotRequired[str]
    arguments: str


class ToolCallDelta(TypedDict):
    """`id`, `type` and `name` come with the first piece of a call; the pieces of `arguments` are to be joined."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionDelta


class CustomDelta(TypedDict):
    name: NotRequired[str]
    input: str


class CustomToolCallDelta(TypedDict):
    """The same of a custom tool; the pieces of `input` are to be joined."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["custom"]]
    custom: CustomDelta


class ChatDelta(TypedDict):
    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str | None]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCallDelta | CustomToolCallDelta]]


class ChatChunkChoice(TypedDict):
    index: int
    delta: ChatDelta
    logprobs: NotRequired[ChatLogprobs]
    finish_reason: FinishReason | None


class ChatChunk(TypedDict):
    """One event. By default `usage` comes with the chunk that ends the last choice."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    service_tier: ServiceTier
    choices: list[ChatChunkChoice]
    usage: NotRequired[Usage | None]


class CompletionLogprobs(TypedDict):
    """Parallel lists. With `echo` they begin with the prompt's tokens, of which the first has no log probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class Completion(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    service_tier: ServiceTier
    choices: list[CompletionChoice]
    usage: Usage


class CompletionChunkChoice(TypedDict):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class CompletionChunk(TypedDict):
    """One event. By default `usage` comes with the chunk that ends the last choice."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    service_tier: ServiceTier
    choices: list[CompletionChunkChoice]
    usage: NotRequired[Usage | None]


class GeneratedText(TypedDict):
    generated_text: str


class InferenceStatus(TypedDict):
    """`cost` is in US dollars."""

    status: InferenceStatusName
    runtime_ms: int
    cost: float
    tokens_input: int
    tokens_generated: int


class Inference(TypedDict):
    """With a webhook the answer comes at once, as `queued`, and this again when it is done, to the webhook."""

    request_id: str
    inference_status: InferenceStatus
    results: list[GeneratedText]
    num_tokens: int
    num_input_tokens: int


class InferenceError(TypedDict):
    """`code` is stable, `message` is for people."""

    message: str
    code: str


class FailedInference(Inference):
    """What a webhook gets instead of a result. `detail` repeats the message."""

    error: InferenceError
    detail: str


class InferenceToken(TypedDict):
    id: int
    text: str
    logprob: float
    special: bool


class InferenceDetails(TypedDict):
    finish_reason: FinishReason
    generated_tokens: int
    input_tokens: int
    cost: float
    runtime_ms: int
    request_id: str


class InferenceEvent(TypedDict):
    """One token. The last event has the whole text and the details."""

    token: InferenceToken
    generated_text: str | None
    details: InferenceDetails | None


class WebhookSecret(TypedDict):
    secret: str


class Root(TypedDict):
    name: str
    documentation: str
    openapi: str


class Health(TypedDict):
    status: Literal["ready", "unready"]
    problems: list[str]
    models: dict[str, str]


class Liveness(TypedDict):
    status: Literal["ok", "dead"]

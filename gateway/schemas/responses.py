"""The shapes of what the Responses API gives, for the documents; see `gateway.schemas.openai`."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from gateway.schemas.openai import ChatLogprob, ServiceTier

ResponseStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(TypedDict):
    type: Literal["output_text"]
    text: str
    annotations: list[object]
    logprobs: NotRequired[list[ChatLogprob]]


class OutputReasoningText(TypedDict):
    type: Literal["reasoning_text"]
    text: str


class OutputMessage(TypedDict):
    type: Literal["message"]
    id: str
    role: Literal["assistant"]
    status: ResponseStatus
    content: list[OutputText]


class OutputFunctionCall(TypedDict):
    """`arguments` is JSON as the model wrote it: it may not fit the function's schema."""

    type: Literal["function_call"]
    id: str
    call_id: str
    name: str
    namespace: NotRequired[str]
    arguments: str
    status: ResponseStatus


class OutputCustomCall(TypedDict):
    """A call of a custom tool, whose input is a text."""

    type: Literal["custom_tool_call"]
    id: str
    call_id: str
    name: str
    namespace: NotRequired[str]
    input: str
    status: ResponseStatus


class OutputReasoning(TypedDict):
    """`encrypted_content` comes where `include` asks for it, to be sent back."""

    type: Literal["reasoning"]
    id: str
    summary: list[object]
    content: NotRequired[list[OutputReasoningText]]
    encrypted_content: NotRequired[str]
    status: NotRequired[ResponseStatus]


OutputItem = OutputMessage | OutputFunctionCall | OutputCustomCall | OutputReasoning


class InputTokensDetails(TypedDict):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(TypedDict):
    reasoning_tokens: int


class ResponseUsage(TypedDict):
    """The engine's counts. `estimated_cost` is what was charged, in US dollars."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int
    estimated_cost: float


class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens"]


class ResponseObject(TypedDict):
    """What was asked for is repeated, as OpenAI does. Nothing of it is kept."""

    id: str
    object: Literal["response"]
    created_at: int
    status: ResponseStatus
    error: None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    instructions: str | None
    max_output_tokens: int | None
    temperature: float
    top_p: float
    top_logprobs: int
    tools: list[dict[str, object]]
    tool_choice: str | dict[str, object]
    parallel_tool_calls: bool
    text: dict[str, object]
    reasoning: dict[str, object]
    metadata: dict[str, str]
    previous_response_id: None
    background: Literal[False]
    store: Literal[False]
    truncation: Literal["disabled"]
    service_tier: ServiceTier
    user: str | None


class ResponseEvent(TypedDict):
    """The answer as it stands: at its beginning, and at its end."""

    type: Literal["response.created", "response.in_progress", "response.completed", "response.incomplete"]
    sequence_number: int
    response: ResponseObject


class ItemEvent(TypedDict):
    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int
    item: OutputItem


class PartEvent(TypedDict):
    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int
    output_index: int
    content_index: int
    item_id: str
    part: OutputText | OutputReasoningText


class TextEvent(TypedDict):
    """A piece of text, or the whole at its end."""

    type: Literal[
        "response.output_text.delta",
        "response.output_text.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
    ]
    sequence_number: int
    output_index: int
    content_index: int
    item_id: str
    delta: NotRequired[str]
    text: NotRequired[str]
    logprobs: NotRequired[list[dict[str, object]]]


class ArgumentsEvent(TypedDict):
    """A piece of a call's arguments, or the whole at its end."""

    type: Literal["response.function_call_arguments.delta", "response.function_call_arguments.done"]
    sequence_number: int
    output_index: int
    item_id: str
    delta: NotRequired[str]
    arguments: NotRequired[str]
    name: NotRequired[str]


class InputEvent(TypedDict):
    """A piece of a custom tool's input, or the whole at its end."""

    type: Literal["response.custom_tool_call_input.delta", "response.custom_tool_call_input.done"]
    sequence_number: int
    output_index: int
    item_id: str
    delta: NotRequired[str]
    input: NotRequired[str]


StreamEvent = ResponseEvent | ItemEvent | PartEvent | TextEvent | ArgumentsEvent | InputEvent

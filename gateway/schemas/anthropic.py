"""The shapes of what Anthropic's clients get, for the documents; see `gateway.schemas.openai`."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class ErrorDetails(TypedDict):
    """What Anthropic's SDKs act on: on this they send the whole conversation instead of what is new."""

    error_code: Literal["thread_unsupported_request"]
    unsupported: list[Literal["thread"]]


class AnthropicErrorFields(TypedDict):
    """`type` is Anthropic's; `code` and `param` are as on the other routes."""

    type: str
    message: str
    param: str | None
    code: str
    details: NotRequired[ErrorDetails]


class AnthropicError(TypedDict):
    """An error of the Messages API: Anthropic's shape, with `detail` as everywhere."""

    type: Literal["error"]
    error: AnthropicErrorFields
    request_id: str
    detail: str


class OutputTokens(TypedDict):
    """A part of `output_tokens`."""

    thinking_tokens: int


class MessageUsage(TypedDict):
    """The prompt is `input_tokens` and `cache_read_input_tokens` together: what is cached costs no more than the rest,
    so `cache_creation_input_tokens` is 0. `estimated_cost` is in US dollars."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: NotRequired[OutputTokens]
    estimated_cost: NotRequired[float]


class MessageText(TypedDict):
    type: Literal["text"]
    text: str


class MessageThinking(TypedDict):
    """`signature` is made up: it is there because clients expect one."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class MessageToolUse(TypedDict):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, object]


class Message(TypedDict):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    content: list[MessageText | MessageThinking | MessageToolUse]
    model: str
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageStart(TypedDict):
    type: Literal["message_start"]
    message: Message


class BlockStart(TypedDict):
    type: Literal["content_block_start"]
    index: int
    content_block: MessageText | MessageThinking | MessageToolUse


class BlockDeltaFields(TypedDict):
    """`type` says which of the others is there."""

    type: Literal["text_delta", "thinking_delta", "signature_delta", "input_json_delta"]
    text: NotRequired[str]
    thinking: NotRequired[str]
    signature: NotRequired[str]
    partial_json: NotRequired[str]


class BlockDelta(TypedDict):
    type: Literal["content_block_delta"]
    index: int
    delta: BlockDeltaFields


class BlockStop(TypedDict):
    type: Literal["content_block_stop"]
    index: int


class MessageDeltaFields(TypedDict):
    stop_reason: StopReason | None
    stop_sequence: str | None


class MessageDelta(TypedDict):
    type: Literal["message_delta"]
    delta: MessageDeltaFields
    usage: MessageUsage


class MessageStop(TypedDict):
    type: Literal["message_stop"]


class Ping(TypedDict):
    """Nothing has happened for a while; the answer goes on."""

    type: Literal["ping"]


MessageEvent = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping


class TokenCount(TypedDict):
    input_tokens: int

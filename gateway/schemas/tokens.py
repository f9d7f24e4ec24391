"""The answers of the routes that count and show tokens and generate none."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12


class Tokens(TypedDict):
    """`max_model_len` is the context's length; `token_strs` are the tokens as the vocabulary has them."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizedText(TypedDict):
    prompt: str


class InputTokens(TypedDict):
    object: Literal["response.input_tokens"]
    input_tokens: int


class RenderedRequest(TypedDict):
    """What the engine would be asked, in vLLM's names; what it does by itself isn't in `sampling_params`."""

    request_id: str
    model: str
    token_ids: list[int]
    sampling_params: dict[str, Any]
    stream: bool
    features: NotRequired[None]

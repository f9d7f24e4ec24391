"""The answer of `POST .../embeddings`."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12


class EmbeddingUsage(TypedDict):
    """The engine's count. `estimated_cost` is what was charged, in US dollars."""

    prompt_tokens: int
    total_tokens: int
    estimated_cost: float


class EmbeddingFields(TypedDict):
    """As numbers, or as base64 of little-endian 32-bit floats."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(TypedDict):
    id: NotRequired[str]
    object: Literal["list"]
    model: str
    data: list[EmbeddingFields]
    usage: EmbeddingUsage

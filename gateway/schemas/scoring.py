"""The answers of `POST .../score` and `.../rerank`."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from gateway.schemas.embeddings import EmbeddingUsage


class Score(TypedDict):
    index: int
    object: Literal["score"]
    score: float


class Scores(TypedDict):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: EmbeddingUsage


class RankedDocument(TypedDict):
    text: str


class Ranked(TypedDict):
    """`index` is the document's place in the request."""

    index: int
    relevance_score: float
    document: NotRequired[RankedDocument]


class Ranking(TypedDict):
    """The most relevant first."""

    id: str
    model: str
    results: list[Ranked]
    usage: EmbeddingUsage

"""`/v1/batches` and `/v1/messages/batches`: what they are asked for with."""

from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from gateway.protocol.anthropic import MessagesBody
from gateway.protocol.body import Body, Query, RequestBody, StrictBody
from gateway.protocol.chat import ChatBody
from gateway.protocol.completions import CompletionBody
from gateway.protocol.embeddings import EmbeddingsBody
from gateway.protocol.files import ExpiresAfter, Name
from gateway.protocol.responses import Metadata, ResponsesBody

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
MESSAGES: Final = "/v1/messages"
PAGE_MAX: Final = 100
MESSAGES_PAGE_MAX: Final = 1000

# The bodies of the lines, by endpoint.
BODIES: Final[dict[str, type[RequestBody]]] = {
    **dict(zip(get_args(Endpoint), (ChatBody, CompletionBody, EmbeddingsBody, ResponsesBody), strict=True)),
    MESSAGES: MessagesBody,
}


class NewBatch(StrictBody):
    """The file's lines are `{"custom_id", "method": "POST", "url", "body"}`: `url` is the endpoint, `custom_id` is the
    line's own, and all bodies name one model."""

    input_file_id: Name
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None
    webhook: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        json_schema_extra={"format": "uri", "pattern": "^https?://"},
        description="An http or https URL that gets an event when the batch has ended.",
    )


class BatchRequest(Body):
    custom_id: str = Field(min_length=1, max_length=64)
    params: dict[str, object]


class NewMessageBatch(Body):
    """For the document; the body may be long, and is checked in a process of its own."""

    requests: list[BatchRequest] = Field(min_length=1)


class BatchPage(Query):
    after: Name | None = None
    limit: int = Field(20, ge=1, le=PAGE_MAX)


class MessageBatchPage(Query):
    after_id: Name | None = None
    before_id: Name | None = None
    limit: Annotated[int, Field(ge=1, le=MESSAGES_PAGE_MAX)] = 20

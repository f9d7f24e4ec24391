"""`/v1/files`: what uploads and lists are asked for with."""

from typing import Annotated, Literal

from pydantic import Field

from gateway.protocol.body import Query, StrictBody

SECONDS_MIN, SECONDS_MAX = 3_600, 2_592_000  # OpenAI's bounds
LIST_MAX = 10_000

Seconds = Annotated[int, Field(ge=SECONDS_MIN, le=SECONDS_MAX)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[!-~]+$")]


class ExpiresAfter(StrictBody):
    """How long a file is kept, in seconds from when it was made."""

    anchor: Literal["created_at"]
    seconds: Seconds


class FormExpiresAfter(Query):
    """The same in a form, where everything is text."""

    anchor: Literal["created_at"]
    seconds: Seconds


class Upload(Query):
    """The fields of the form beside `file`."""

    purpose: Literal["batch"]
    expires_after: FormExpiresAfter | None = None


class FileList(Query):
    after: Name | None = None
    limit: int = Field(LIST_MAX, ge=1, le=LIST_MAX)
    order: Literal["asc", "desc"] = "desc"
    purpose: Annotated[str, Field(max_length=64, pattern=r"^[a-z_-]+$")] | None = None

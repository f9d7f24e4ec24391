"""What is known of a batch."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pricing.money import Picodollars

NOTHING = Picodollars(0)
Dialect = Literal["openai", "anthropic"]


class Status(StrEnum):
    """validating ──► in_progress ──► finalizing ──► completed
    │               ├──► (its window ends) ──► expired
    └──► failed      └──► cancelling ──► cancelled
    """

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


OPEN = (Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING, Status.CANCELLING)
"""Those of batches that somebody must work on."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a batch's file: in which line, counted from 1, and in which field."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a batch is, and what it came to so far."""

    completed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Picodollars = NOTHING


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. Times are milliseconds since 1970 UTC; `metadata` and `errors` are JSON. `webhook` is called when it
    has ended; `unreached` lines were not run then, and count among its failed ones. Its result files are kept for
    `output_seconds`, or as the operator says."""

    id: str
    account_id: int
    key_id: int
    dialect: Dialect
    endpoint: str
    model: str | None
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    status: Status
    metadata: str | None
    webhook: str | None
    errors: str | None
    output_seconds: int | None
    total: int
    unreached: int
    tally: Tally
    created_at: int
    expires_at: int
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None

    @property
    def ended_at(self) -> int | None:
        return self.completed_at or self.failed_at or self.expired_at or self.cancelled_at

    @property
    def is_open(self) -> bool:
        return self.status in OPEN


@dataclass(frozen=True, slots=True)
class Result:
    """What one line came to. `status` is that of HTTP, `body` the answer as JSON; `line` is counted from 1."""

    line: int
    custom_id: str
    request_id: str
    status: int
    body: str
    tally: Tally = Tally()

"""Batches and the results of their lines. Times are milliseconds since 1970 UTC, amounts picodollars.

A line has no row until it has its result. Then its row, and the tokens that the ledger would charge if this process
died in that moment, are written in one transaction, so that each line has one result and one charge.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, PrimaryKeyConstraint, String, Table, Text

from storage.schema import metadata

TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
SUMS = (*TOKENS, "cost")


def _numbers(*names: str, nullable: bool = False) -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=nullable) for name in names]


# `owner` is the process that works on it, until `lease_until` unless it says that it still does.
batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    *_numbers("account_id", "key_id"),
    Column("dialect", String(16), nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("model", Text),
    Column("input_file_id", String(64), nullable=False),
    Column("output_file_id", String(64)),
    Column("error_file_id", String(64)),
    Column("status", String(16), nullable=False),
    Column("metadata", Text),
    Column("webhook", Text),
    Column("errors", Text),
    Column("output_seconds", BigInteger),
    *_numbers("total", "completed", "failed", "unreached", *SUMS, "created_at", "expires_at"),
    *_numbers(
        "in_progress_at",
        "finalizing_at",
        "completed_at",
        "failed_at",
        "expired_at",
        "cancelling_at",
        "cancelled_at",
        nullable=True,
    ),
    Column("owner", String(32)),
    Column("lease_until", BigInteger, nullable=False),
    Index("batches_by_account", "account_id", "created_at", "id"),
    Index("batches_by_status", "status", "lease_until"),
)

# `status` is that of HTTP; `body` the answer as JSON.
results = Table(
    "batch_results",
    metadata,
    Column("batch_id", String(64), nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("custom_id", Text, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    *_numbers(*SUMS),
    PrimaryKeyConstraint("batch_id", "line"),
)

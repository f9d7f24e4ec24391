"""Calls to make when a request is done."""

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from storage.schema import Id, metadata

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("request_id", String(128), nullable=False),
    Column("key_id", BigInteger, nullable=False),
    Column("url", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("last_error", Text),
    Column("created_at", BigInteger, nullable=False),
    Index("webhooks_by_due", "state", "next_attempt_at"),
)

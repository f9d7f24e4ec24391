"""Answers to give again."""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, PrimaryKeyConstraint, String, Table

from storage.schema import metadata

idempotency = Table(
    "idempotency",
    metadata,
    Column("key_id", BigInteger, nullable=False),
    Column("idempotency_key", String(255), nullable=False),
    Column("body_hash", LargeBinary(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("response", LargeBinary),
    Column("status", Integer),
    Column("content_type", String(128)),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("key_id", "idempotency_key"),
    Index("idempotency_by_expiry", "expires_at"),
)

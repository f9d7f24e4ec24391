"""The tables, as SQLAlchemy Core. Amounts are picodollars, times milliseconds since 1970 UTC, both BIGINT.

Locks are always taken in this order, so that no deadlock can exist: `processes`, `meta`, `accounts` by id, `keys` by
id. Rows of `reservations`, `entries` and `usage` are changed only by a holder of their account's and key's lock;
checkpoints, which hold no other lock, change theirs in the order of request ids.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from storage.schema import Id, metadata


def _standing() -> list[Column[str] | Column[int]]:
    """Limits and where they stand.

    `limits` is a JSON list (`pricing.balance`), and `standings` one as long: of each limit the beginning of its current
    period, and what is spent and reserved in it. In the row itself, so that a commit
    locks, reads and writes as much for eight limits as for one. `fullest` is how many percent of one of them were taken
    at the last commit; `reserved` and `spent_total` are over all models and times.
    """
    return [
        Column("limits", Text, nullable=False),
        Column("standings", Text, nullable=False),
        Column("fullest", BigInteger, nullable=False),
        Column("reserved", BigInteger, nullable=False),
        Column("spent_total", BigInteger, nullable=False),
    ]


def _request() -> list[Column[str] | Column[int]]:
    """What is known of a request from its reservation on."""
    return [
        Column("process_id", String(32), nullable=False),
        Column("account_id", BigInteger, nullable=False),
        Column("key_id", BigInteger, nullable=False),
        Column("model", Text, nullable=False),
        Column("route", Text, nullable=False),
        Column("end_user", Text),
        Column("tier", String(16), nullable=False, server_default=text("'default'")),
        Column("price_input", BigInteger, nullable=False),
        Column("price_output", BigInteger, nullable=False),
        Column("price_cached_input", BigInteger, nullable=False),
        Column("amount", BigInteger, nullable=False),
        Column("started_at", BigInteger, nullable=False),
        Column("reserved_at", BigInteger, nullable=False),
        Column("prompt_tokens", BigInteger, nullable=False),
        Column("cached_tokens", BigInteger, nullable=False),
        Column("completion_tokens", BigInteger, nullable=False),
    ]


accounts = Table(
    "accounts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    *_standing(),
    Column("created_at", BigInteger, nullable=False),
    Column("suspended_at", BigInteger),
    Column("weight", BigInteger, nullable=False, server_default=text("100")),
    postgresql_with={"fillfactor": "50"},  # hot rows: room for in-place updates
)

keys = Table(
    "keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("role", String(16), nullable=False),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("previous_hash", LargeBinary(32), unique=True),
    Column("previous_until", BigInteger),
    *_standing(),
    Column("models", Text),  # a JSON list; NULL means all
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("concurrent_requests", BigInteger),
    Column("tier", String(16)),  # NULL means the default one
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Index("keys_by_version", "version"),
    Index(
        "keys_by_name",
        "account_id",
        "name",
        unique=True,  # among those in use: the name of a revoked key is free again
        postgresql_where=text("revoked_at IS NULL"),
        sqlite_where=text("revoked_at IS NULL"),
    ),
    postgresql_with={"fillfactor": "50"},
)

credits = Table(
    "credits",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("reference", String(200)),
    Column("actor", String(200), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("account_id", "reference", name="credits_by_reference"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(64), nullable=False),
    Column("account_id", BigInteger),
    Column("key_id", BigInteger),
    Column("detail", Text, nullable=False),
    Index("audit_by_account", "account_id", "id"),
    Index("audit_by_key", "key_id", "id"),
)

# `beat` grows with each heartbeat. A process is dead when others saw it unchanged for `lease_ms`, by their own clocks.
processes = Table(
    "processes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("machine", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("pid_started", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("lease_ms", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
)

# Requests that run now. The token columns are the last checkpoint.
reservations = Table(
    "reservations",
    metadata,
    Column("request_id", String(128), primary_key=True),
    *_request(),
    postgresql_with={"fillfactor": "50", "autovacuum_vacuum_scale_factor": "0.01"},
)

# What happened: appended to, never changed. Exactly once comes from `reservations`: only the transaction whose DELETE
# returned the reservation may append its entry, in the same transaction. (PostgreSQL can't hold `request_id` unique
# across partitions, and needn't.) PostgreSQL has one partition per UTC month, see `pricing.retention`.
entries = Table(
    "entries",
    metadata,
    Column("request_id", String(128), nullable=False),
    *_request(),
    Column("settled_at", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text),
    Column("cost", BigInteger, nullable=False),
    PrimaryKeyConstraint("settled_at", "request_id"),
    Index("entries_by_request", "request_id"),
    Index("entries_by_key", "key_id", "settled_at"),
    postgresql_partition_by="RANGE (settled_at)",
)

# Sums of `entries`, kept in the same transaction as each entry, by the time of the reservation. A grain says what is
# told apart: `day` the UTC day (from `start` on), `quarter` the quarter of an hour (whatever a time zone calls a day or
# an hour is made of those), `user` the UTC day and the end user, for those who named one. `end_user` is empty in the
# other grains. Another dimension is another column here and in `DIMENSIONS`.
DAY: Final = "day"
QUARTER: Final = "quarter"
USER: Final = "user"
DIMENSIONS: Final = ("grain", "key_id", "start", "model", "account_id", "end_user")
SUMS: Final = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cost")
usage = Table(
    "usage",
    metadata,
    Column("grain", String(8), nullable=False),
    Column("key_id", BigInteger, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    Column("account_id", BigInteger, nullable=False),
    Column("end_user", Text, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in SUMS),
    PrimaryKeyConstraint(*DIMENSIONS),
    Index("usage_by_account", "grain", "account_id", "start"),
    Index("usage_by_start", "grain", "start"),
)

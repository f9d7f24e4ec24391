"""The settings of the ledger, its database, and budgets."""

from pydantic import BaseModel, Field

from pricing.balance import LIMITS_CAP, LIMITS_MAX


class MoneySettings(BaseModel):
    """Durations are in seconds, sizes in bytes, where the name doesn't say otherwise."""

    lease_seconds: float = Field(
        15.0, ge=1, description="How long a process that stopped answering keeps its open reservations."
    )
    checkpoint_seconds: float = Field(
        0.5, gt=0, le=1, description="How often the tokens of running requests are written down."
    )
    ledger_entry_days: int | None = Field(
        None,
        ge=7,
        description="How long the ledger keeps each request's entry; the daily totals stay. PostgreSQL removes whole "
        "months. Default: for ever.",
    )
    database_lock_seconds: float = Field(
        2.0,
        ge=0.1,
        le=600,
        description="PostgreSQL: how long a group commit waits for rows that another process holds; then what touches "
        "them waits apart.",
    )
    database_idle_seconds: float = Field(
        5.0, ge=1, le=600, description="PostgreSQL: how long a transaction may be idle; then the server ends it."
    )
    database_statement_seconds: float = Field(
        8.0,
        ge=1,
        le=600,
        description="PostgreSQL: how long a statement may take, and a request wait for its account's rows. More than "
        "`FAREBOX_DATABASE_LOCK_SECONDS`.",
    )
    key_cache_seconds: float = Field(
        300.0, ge=0, description="How long known keys stay valid while the database can't be reached."
    )
    limits_max: int = Field(
        LIMITS_MAX, ge=1, le=LIMITS_CAP, description="How many spending limits an account or a key may have at a time."
    )

"""Who is signed in. Only hashes are stored: of the cookie's token, and of the secret that opened it."""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table

from storage.schema import metadata

console_sessions = Table(
    "console_sessions",
    metadata,
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("secret_hash", LargeBinary(32), nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),
    Index("console_sessions_by_opened", "opened_at"),
)

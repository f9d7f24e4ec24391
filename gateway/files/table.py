"""What is known of a file; its bytes are in the store. Times are milliseconds since 1970 UTC."""

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from storage.schema import metadata

files = Table(
    "files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("account_id", BigInteger, nullable=False),
    Column("key_id", BigInteger, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Index("files_by_account", "account_id", "created_at", "id"),
    Index("files_by_expiry", "expires_at"),
)

"""Alembic runs this file; it uses the connection, and the transaction, that `storage.migrations` opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()

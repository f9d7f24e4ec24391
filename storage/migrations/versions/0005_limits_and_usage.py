"""Several limits for an account and a key, and sums of usage by the quarter of an hour and by end user.

Each row keeps its one limit, and where that stands. Code of an earlier revision counts in columns that are gone: stop
it before this.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cost")
QUARTER = 900_000


def upgrade() -> None:
    for table in ("accounts", "keys"):
        _limits(table)
    op.create_table(
        "usage",
        sa.Column("grain", sa.String(length=8), nullable=False),
        sa.Column("key_id", sa.BigInteger(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("end_user", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("grain", "key_id", "start", "model", "account_id", "end_user"),
    )
    op.create_index("usage_by_account", "usage", ["grain", "account_id", "start"], unique=False)
    op.create_index("usage_by_start", "usage", ["grain", "start"], unique=False)
    _usage()
    op.drop_table("usage_daily")
    op.execute("UPDATE meta SET compatible_from = '0005'")


def _limits(table: str) -> None:
    owner = "account_id" if table == "accounts" else "key_id"
    op.add_column(table, sa.Column("limits", sa.Text(), nullable=False, server_default=sa.text("'[]'")))
    op.add_column(table, sa.Column("standings", sa.Text(), nullable=False, server_default=sa.text("'[]'")))
    op.add_column(table, sa.Column("fullest", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    connection = op.get_bind()
    rows = connection.execute(
        sa.text(f"SELECT id, limit_kind, limit_amount, period_start, spent, reserved FROM {table}")
    ).all()
    changed = []
    for row in rows:
        if row.limit_kind != "none":
            taken = row.spent + row.reserved
            full = min(100, taken * 100 // row.limit_amount) if row.limit_amount else 100
            limits = json.dumps([{"kind": row.limit_kind, "amount": row.limit_amount}])
            standings = json.dumps([[row.period_start, row.spent, row.reserved]])
            changed.append({"row": row.id, "limits": limits, "standings": standings, "full": full})
    if changed:
        connection.execute(
            sa.text(f"UPDATE {table} SET limits = :limits, standings = :standings, fullest = :full WHERE id = :row"),
            changed,
        )
    op.execute(
        f"UPDATE {table} SET reserved = "
        f"(SELECT COALESCE(SUM(amount), 0) FROM reservations WHERE reservations.{owner} = {table}.id)"
    )
    for column in ("limit_kind", "limit_amount", "period_start", "spent"):
        op.drop_column(table, column)
    if connection.dialect.name == "postgresql":  # SQLite can't take a default away
        for column in ("limits", "standings", "fullest"):
            op.alter_column(table, column, server_default=None)


def _usage() -> None:
    """By the day as before; by the quarter and the end user as far as there are entries. What is older is put down for
    the first quarter of its day, so that the sums of all quarters stay those of all days."""
    if op.get_bind().dialect.name == "postgresql":
        start = "CAST(EXTRACT(EPOCH FROM CAST(day AS DATE)) AS BIGINT) * 1000"
    else:
        start = "CAST(strftime('%s', day) AS INTEGER) * 1000"
    day, quarter = "reserved_at - reserved_at % 86400000", f"reserved_at - reserved_at % {QUARTER}"
    names = ", ".join(("grain", "key_id", "start", "model", "account_id", "end_user", *SUMS))
    sums = f"COUNT(*), {', '.join(f'SUM({name})' for name in SUMS[1:])}"
    charged = "FROM entries WHERE state <> 'void'"
    add = ", ".join(f"{name} = usage.{name} + excluded.{name}" for name in SUMS)
    op.execute(
        f"INSERT INTO usage ({names}) SELECT 'day', key_id, {start}, model, account_id, '', {', '.join(SUMS)} "
        "FROM usage_daily"
    )
    op.execute(
        f"INSERT INTO usage ({names}) SELECT 'quarter', key_id, start, model, account_id, '', {', '.join(SUMS)} "
        "FROM usage"
    )
    less = f"-COUNT(*), {', '.join(f'-SUM({name})' for name in SUMS[1:])}"
    for at, values in ((day, less), (quarter, sums)):
        op.execute(
            f"INSERT INTO usage ({names}) SELECT 'quarter', key_id, {at}, model, account_id, '', {values} {charged} "
            f"GROUP BY key_id, {at}, model, account_id ON CONFLICT (grain, key_id, start, model, account_id, end_user) "
            f"DO UPDATE SET {add}"
        )
    op.execute("DELETE FROM usage WHERE grain = 'quarter' AND requests = 0")
    op.execute(
        f"INSERT INTO usage ({names}) SELECT 'user', key_id, {day}, model, account_id, end_user, {sums} {charged} "
        f"AND end_user <> '' GROUP BY key_id, {day}, model, account_id, end_user"
    )

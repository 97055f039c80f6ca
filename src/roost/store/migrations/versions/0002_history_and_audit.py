"""When each change was recorded, the audit, and keys that PostgreSQL compares by their bytes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

KEYS = {
    "resources": {"kind": 63, "namespace": 63, "name": 253, "uid": 64, "origin": 255},
    "changes": {"kind": 63, "namespace": 63, "name": 253, "origin": 255},
    "counters": {"name": 255},
    "properties": {"name": 255},
    "cursors": {"peer": 255, "store_id": 64},
    "leases": {"name": 255},
    "steps": {"operation": 64, "state": 16},
}


def upgrade() -> None:
    op.add_column("changes", sa.Column("recorded_at", sa.Float, nullable=False, server_default=sa.text("0")))
    op.create_table(
        "audit",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    _compare('"C"')


def downgrade() -> None:
    """The audit and the times of changes go; everything else stays."""
    _compare("pg_catalog.default")
    op.drop_table("audit")
    op.drop_column("changes", "recorded_at")


def _compare(collation: str) -> None:
    """Compare keys so; SQLite compares bytes anyway."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, columns in KEYS.items():
        parts = ", ".join(
            f"ALTER COLUMN {name} TYPE VARCHAR({length}) COLLATE {collation}"
            for name, length in columns.items()
        )
        op.execute(f"ALTER TABLE {table} {parts}")

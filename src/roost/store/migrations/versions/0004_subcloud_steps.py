"""Steps of operations over many subclouds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TABLE = "subcloud_steps"
INDEXES = {
    "by_state": ["operation", "state", "stage", "number"],
    "by_deadline": ["operation", "state", "deadline"],
    "by_subcloud": ["operation", "subcloud"],
}


def upgrade() -> None:
    def key(length: int) -> sa.types.TypeEngine[str]:
        return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")

    op.create_table(
        TABLE,
        sa.Column("operation", key(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("subcloud", key(63), nullable=False),
        sa.Column("state", key(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("deadline", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float, nullable=False),
        sa.Column("reason", key(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    for name, columns in INDEXES.items():
        op.create_index(f"{TABLE}_{name}", TABLE, columns)


def downgrade() -> None:
    """The steps go; operations over subclouds stay as resources, which the older version does not know."""
    op.drop_table(TABLE)

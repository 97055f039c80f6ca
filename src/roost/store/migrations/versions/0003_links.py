"""Where each subcloud's link is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    bytewise = {"collation": "C"} if op.get_bind().dialect.name == "postgresql" else {}
    op.create_table(
        "links",
        sa.Column("node", sa.String(255, **bytewise), primary_key=True),
        sa.Column("process", sa.String(255, **bytewise), nullable=False),
        sa.Column("session", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("version", sa.String(255), nullable=False),
        sa.Column("address", sa.String(255), nullable=False),
        sa.Column("certificate_expires_at", sa.String(32), nullable=False),
        sa.Column("trouble", sa.Text, nullable=False),
    )
    op.create_index("links_by_changed", "links", ["changed"])
    op.create_index("links_by_process", "links", ["process"])


def downgrade() -> None:
    """Links are found again by who dials."""
    op.drop_table("links")

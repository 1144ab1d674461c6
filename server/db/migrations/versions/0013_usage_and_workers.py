"""Requests that limits refused, by day, and the workers that live."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "usage_day", sa.Column("refused", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.create_table(
        "worker_process",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("jobs_at_once", sa.Integer(), nullable=False),
        sa.Column("jobs", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("imports", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker_process")),
        sa.UniqueConstraint("name", name=op.f("uq_worker_process_name")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("worker_process")
    op.drop_column("usage_day", "refused")

"""Receipts of answers, and the switch for what answers are shown."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "tenant", sa.Column("retrieval", sa.Boolean(), server_default=sa.true(), nullable=False)
    )
    op.create_table(
        "receipt",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("answer_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("dataset", sa.String(length=64), nullable=True),
        sa.Column("grounding", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_receipt_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_receipt")),
        sa.UniqueConstraint("tenant_id", "answer_id", name=op.f("uq_receipt_tenant_id")),
    )
    op.create_index(op.f("ix_receipt_tenant_id"), "receipt", ["tenant_id"])


def downgrade() -> None:
    """Take back."""
    op.drop_table("receipt")
    op.drop_column("tenant", "retrieval")

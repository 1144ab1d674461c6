"""Labels of heads that hand a conversation to a person, and why one was handed over or is to be looked at."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "handoff_rule",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("task", sa.String(length=12), nullable=False),
        sa.Column("label", sa.String(length=60), nullable=False),
        sa.Column("at_least", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_handoff_rule_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_handoff_rule")),
        sa.UniqueConstraint("tenant_id", "task", "label", name=op.f("uq_handoff_rule_tenant_id")),
    )
    op.create_index(op.f("ix_handoff_rule_tenant_id"), "handoff_rule", ["tenant_id"])
    op.add_column(
        "handoff", sa.Column("reason", sa.Text(), nullable=False, server_default=sa.text("''"))
    )
    op.add_column(
        "live_conversation",
        sa.Column("look_reason", sa.Text(), nullable=False, server_default=sa.text("''")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_column("live_conversation", "look_reason")
    op.drop_column("handoff", "reason")
    op.drop_table("handoff_rule")

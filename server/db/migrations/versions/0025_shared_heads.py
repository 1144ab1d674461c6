"""Heads of the installation, which tenants without one of their own use; a tenant may switch one off."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("head") as batch_op:
        batch_op.alter_column("tenant_id", existing_type=sa.String(length=32), nullable=True)
    op.create_index(
        "uq_head_shared",
        "head",
        ["task", "version"],
        unique=True,
        sqlite_where=sa.text("tenant_id IS NULL"),
        postgresql_where=sa.text("tenant_id IS NULL"),
    )
    op.add_column(
        "message_label",
        sa.Column("is_shared", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column(
        "tenant",
        sa.Column(
            "shared_heads_off",
            sa.JSON().with_variant(JSONB(), "postgresql"),
            nullable=False,
            server_default="[]",
        ),
    )


def downgrade() -> None:
    """Take back. Shared heads go."""
    op.drop_column("tenant", "shared_heads_off")
    op.drop_column("message_label", "is_shared")
    op.drop_index("uq_head_shared", table_name="head")
    op.execute("DELETE FROM head WHERE tenant_id IS NULL")
    with op.batch_alter_table("head") as batch_op:
        batch_op.alter_column("tenant_id", existing_type=sa.String(length=32), nullable=False)

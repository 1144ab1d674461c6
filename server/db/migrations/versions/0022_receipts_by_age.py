"""Receipts are found by their age: every answer has one."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index(op.f("ix_receipt_created_at"), "receipt", ["created_at"])


def downgrade() -> None:
    """Take back."""
    op.drop_index(op.f("ix_receipt_created_at"), table_name="receipt")

"""Whether visitors see the sources of answers, and what becomes of an answer that nothing supports."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "tenant",
        sa.Column("show_sources", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column(
        "tenant",
        sa.Column(
            "when_unsupported", sa.String(length=12), server_default="answer", nullable=False
        ),
    )
    op.add_column(
        "live_conversation",
        sa.Column("unsupported_since", sa.DateTime(timezone=True), nullable=True),
    )
    op.create_index(
        "ix_live_conversation_unsupported",
        "live_conversation",
        ["tenant_id"],
        sqlite_where=sa.text("unsupported_since IS NOT NULL"),
        postgresql_where=sa.text("unsupported_since IS NOT NULL"),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_live_conversation_unsupported", table_name="live_conversation")
    op.drop_column("live_conversation", "unsupported_since")
    op.drop_column("tenant", "when_unsupported")
    op.drop_column("tenant", "show_sources")

"""Heads, what they said of messages, and how many messages of a conversation sounded annoyed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "live_conversation",
        sa.Column("annoyed_messages", sa.Integer(), nullable=False, server_default="0"),
    )
    op.add_column(
        "widget",
        sa.Column("offer_when_annoyed", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "head",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("task", sa.String(length=12), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("texts", sa.Integer(), nullable=False),
        sa.Column("executor", sa.Text(), nullable=True),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("manifest", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True),
        sa.Column("error", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("live_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("replaced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_head_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_head")),
        sa.UniqueConstraint("tenant_id", "task", "version", name=op.f("uq_head_tenant_id")),
    )
    op.create_index(op.f("ix_head_tenant_id"), "head", ["tenant_id"])
    op.create_index(op.f("ix_head_state"), "head", ["state"])
    op.create_table(
        "message_label",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("conversation_id", sa.String(length=32), nullable=False),
        sa.Column("message_id", sa.String(length=32), nullable=False),
        sa.Column("task", sa.String(length=12), nullable=False),
        sa.Column("label", sa.String(length=60), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("head_version", sa.Integer(), nullable=False),
        sa.Column("head_sha256", sa.String(length=64), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.ForeignKeyConstraint(
                [f"{of}_id"],
                [f"{table}.id"],
                name=op.f(f"fk_message_label_{of}_id_{table}"),
                ondelete="CASCADE",
            )
            for of, table in (
                ("tenant", "tenant"),
                ("conversation", "live_conversation"),
                ("message", "live_message"),
            )
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message_label")),
        sa.UniqueConstraint("message_id", "task", name=op.f("uq_message_label_message_id")),
    )
    op.create_index(op.f("ix_message_label_conversation_id"), "message_label", ["conversation_id"])
    op.create_index(
        op.f("ix_message_label_tenant_id"), "message_label", ["tenant_id", "task", "day"]
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("message_label")
    op.drop_table("head")
    op.drop_column("widget", "offer_when_annoyed")
    op.drop_column("live_conversation", "annoyed_messages")

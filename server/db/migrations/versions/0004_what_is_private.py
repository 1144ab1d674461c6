"""Uploads that go, imports that can be deleted and take turns, and secrets that are encrypted."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Secrets are encrypted by the first server that starts: only it has the key."""
    op.create_table(
        "imported_again",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("import_id", sa.String(length=32), nullable=False),
        sa.Column("conversation_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversation.id"],
            name=op.f("fk_imported_again_conversation_id_conversation"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["import.id"],
            name=op.f("fk_imported_again_import_id_import"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_imported_again_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imported_again")),
        sa.UniqueConstraint(
            "import_id", "conversation_id", name=op.f("uq_imported_again_import_id")
        ),
    )
    with op.batch_alter_table("imported_again", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_imported_again_conversation_id"), ["conversation_id"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_imported_again_tenant_id"), ["tenant_id"], unique=False
        )

    with op.batch_alter_table("tenant", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("keep_upload_days", sa.Integer(), server_default="0", nullable=False)
        )
    with op.batch_alter_table("source_file", schema=None) as batch_op:
        batch_op.add_column(sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("import", schema=None) as batch_op:
        batch_op.add_column(sa.Column("started_at", sa.DateTime(timezone=True), nullable=True))
    with op.batch_alter_table("dataset_version", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("import_ids", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True)
        )
    with op.batch_alter_table("webhook_endpoint", schema=None) as batch_op:
        batch_op.add_column(sa.Column("secret_hint", sa.String(length=4), nullable=True))
    op.execute("UPDATE webhook_endpoint SET secret_hint = substr(secret, length(secret) - 3)")


def downgrade() -> None:
    """Undo; secrets that were encrypted since cannot be used by an older server."""
    with op.batch_alter_table("webhook_endpoint", schema=None) as batch_op:
        batch_op.drop_column("secret_hint")
    with op.batch_alter_table("dataset_version", schema=None) as batch_op:
        batch_op.drop_column("import_ids")
    with op.batch_alter_table("import", schema=None) as batch_op:
        batch_op.drop_column("started_at")
    with op.batch_alter_table("source_file", schema=None) as batch_op:
        batch_op.drop_column("removed_at")
    with op.batch_alter_table("tenant", schema=None) as batch_op:
        batch_op.drop_column("keep_upload_days")
    with op.batch_alter_table("imported_again", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_imported_again_tenant_id"))
        batch_op.drop_index(batch_op.f("ix_imported_again_conversation_id"))
    op.drop_table("imported_again")

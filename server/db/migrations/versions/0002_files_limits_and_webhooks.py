"""Files, limits and webhooks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


# Defaults are strings: for an expression SQLite makes the table anew, and dropping the old one
# would take every row that refers to it along.
def upgrade() -> None:  # noqa: PLR0915 - one list
    """Apply."""
    op.create_table(
        "file",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.String(length=40), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenant.id"], name=op.f("fk_file_tenant_id_tenant"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_file")),
    )
    with op.batch_alter_table("file", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_file_sha256"), ["sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_file_tenant_id"), ["tenant_id"], unique=False)

    op.create_table(
        "idempotent_request",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_idempotent_request_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotent_request")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_idempotent_request_tenant_id")),
    )
    with op.batch_alter_table("idempotent_request", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_idempotent_request_expires_at"), ["expires_at"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_idempotent_request_tenant_id"), ["tenant_id"], unique=False
        )

    op.create_table(
        "stored_completion",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("messages", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("answer", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("client_metadata", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_stored_completion_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stored_completion")),
    )
    with op.batch_alter_table("stored_completion", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_stored_completion_tenant_id"), ["tenant_id"], unique=False
        )

    op.create_table(
        "stored_response",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("previous_id", sa.String(length=32), nullable=True),
        sa.Column("items", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("answer", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_stored_response_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stored_response")),
    )
    with op.batch_alter_table("stored_response", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_stored_response_expires_at"), ["expires_at"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_stored_response_tenant_id"), ["tenant_id"], unique=False
        )

    op.create_table(
        "upload",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("purpose", sa.String(length=40), nullable=False),
        sa.Column("mime_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("file_seconds", sa.Integer(), nullable=True),
        sa.Column("file_id", sa.String(length=32), nullable=True),
        sa.Column("parts_sha256", sa.String(length=64), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_upload_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload")),
    )
    with op.batch_alter_table("upload", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_upload_tenant_id"), ["tenant_id"], unique=False)

    op.create_table(
        "usage_minute",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_usage_minute_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_minute")),
        sa.UniqueConstraint(
            "tenant_id", "minute", "key_id", name=op.f("uq_usage_minute_tenant_id")
        ),
    )
    with op.batch_alter_table("usage_minute", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_usage_minute_minute"), ["minute"], unique=False)
        batch_op.create_index(batch_op.f("ix_usage_minute_tenant_id"), ["tenant_id"], unique=False)

    op.create_table(
        "webhook_endpoint",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.Text(), nullable=True),
        sa.Column("previous_secret_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("events", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_webhook_endpoint_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoint")),
    )
    with op.batch_alter_table("webhook_endpoint", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_webhook_endpoint_tenant_id"), ["tenant_id"], unique=False
        )

    op.create_table(
        "upload_part",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("upload_id", sa.String(length=32), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_upload_part_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            ["upload.id"],
            name=op.f("fk_upload_part_upload_id_upload"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_part")),
    )
    with op.batch_alter_table("upload_part", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_upload_part_sha256"), ["sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_upload_part_tenant_id"), ["tenant_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_upload_part_upload_id"), ["upload_id"], unique=False)

    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("endpoint_id", sa.String(length=32), nullable=False),
        sa.Column("event", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoint.id"],
            name=op.f("fk_webhook_delivery_endpoint_id_webhook_endpoint"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f("fk_webhook_delivery_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
    )
    with op.batch_alter_table("webhook_delivery", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_webhook_delivery_endpoint_id"), ["endpoint_id"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_webhook_delivery_state"), ["state", "due_at"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_webhook_delivery_tenant_id"), ["tenant_id"], unique=False
        )

    with op.batch_alter_table("api_key", schema=None) as batch_op:
        batch_op.add_column(sa.Column("replaces_id", sa.String(length=32), nullable=True))
        batch_op.add_column(
            sa.Column("limits", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True)
        )

    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("pause_requested", sa.Boolean(), server_default="0", nullable=False)
        )
        batch_op.add_column(sa.Column("training_file_id", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("validation_file_id", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("result_file_id", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("start_adapter_id", sa.String(length=32), nullable=True))
        batch_op.add_column(
            sa.Column("method", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True)
        )
        batch_op.add_column(
            sa.Column(
                "client_metadata", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True
            )
        )
        batch_op.add_column(
            sa.Column("gpu_seconds", sa.Float(), server_default="0", nullable=False)
        )

    with op.batch_alter_table("tenant", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "keep",
                sa.JSON().with_variant(JSONB(), "postgresql"),
                server_default="[]",
                nullable=False,
            )
        )
        batch_op.add_column(
            sa.Column("limits", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True)
        )

    with op.batch_alter_table("usage_day", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("gpu_seconds", sa.Float(), server_default="0", nullable=False)
        )


def downgrade() -> None:  # noqa: PLR0915 - one list
    """Undo."""
    with op.batch_alter_table("usage_day", schema=None) as batch_op:
        batch_op.drop_column("gpu_seconds")

    with op.batch_alter_table("tenant", schema=None) as batch_op:
        batch_op.drop_column("limits")
        batch_op.drop_column("keep")

    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_column("gpu_seconds")
        batch_op.drop_column("client_metadata")
        batch_op.drop_column("method")
        batch_op.drop_column("start_adapter_id")
        batch_op.drop_column("result_file_id")
        batch_op.drop_column("validation_file_id")
        batch_op.drop_column("training_file_id")
        batch_op.drop_column("pause_requested")

    with op.batch_alter_table("api_key", schema=None) as batch_op:
        batch_op.drop_column("limits")
        batch_op.drop_column("replaces_id")

    with op.batch_alter_table("webhook_delivery", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_webhook_delivery_tenant_id"))
        batch_op.drop_index(batch_op.f("ix_webhook_delivery_state"))
        batch_op.drop_index(batch_op.f("ix_webhook_delivery_endpoint_id"))

    op.drop_table("webhook_delivery")
    with op.batch_alter_table("upload_part", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_upload_part_upload_id"))
        batch_op.drop_index(batch_op.f("ix_upload_part_tenant_id"))
        batch_op.drop_index(batch_op.f("ix_upload_part_sha256"))

    op.drop_table("upload_part")
    with op.batch_alter_table("webhook_endpoint", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_webhook_endpoint_tenant_id"))

    op.drop_table("webhook_endpoint")
    with op.batch_alter_table("usage_minute", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_usage_minute_tenant_id"))
        batch_op.drop_index(batch_op.f("ix_usage_minute_minute"))

    op.drop_table("usage_minute")
    with op.batch_alter_table("upload", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_upload_tenant_id"))

    op.drop_table("upload")
    with op.batch_alter_table("stored_response", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_stored_response_tenant_id"))
        batch_op.drop_index(batch_op.f("ix_stored_response_expires_at"))

    op.drop_table("stored_response")
    with op.batch_alter_table("stored_completion", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_stored_completion_tenant_id"))

    op.drop_table("stored_completion")
    with op.batch_alter_table("idempotent_request", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_idempotent_request_tenant_id"))
        batch_op.drop_index(batch_op.f("ix_idempotent_request_expires_at"))

    op.drop_table("idempotent_request")
    with op.batch_alter_table("file", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_file_tenant_id"))
        batch_op.drop_index(batch_op.f("ix_file_sha256"))

    op.drop_table("file")

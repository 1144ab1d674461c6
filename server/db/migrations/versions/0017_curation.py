"""Words that redaction always replaces, and what people decide about doubtful and flagged texts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def _record(*columns: sa.Column[object]) -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        *columns,
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )


def _of_tenant(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_tenant_id_tenant")
    return sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=name, ondelete="CASCADE")


def upgrade() -> None:
    """Apply."""
    op.add_column("tenant", sa.Column("masked_terms", _JSON, server_default="[]", nullable=False))
    op.add_column("tenant", sa.Column("curation_rules", _JSON, server_default="{}", nullable=False))
    op.create_table(
        "redaction_decision",
        *_record(
            sa.Column("rule", sa.String(length=40), nullable=False),
            sa.Column("text", sa.Text(), nullable=False),
            sa.Column("entity_type", sa.String(length=20), nullable=False),
            sa.Column("decision", sa.String(length=8), nullable=False),
            sa.Column("masked", sa.Text(), nullable=False),
            sa.Column("actor", sa.Text(), nullable=False),
        ),
        _of_tenant("redaction_decision"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_redaction_decision")),
        sa.UniqueConstraint(
            "tenant_id", "rule", "text", name=op.f("uq_redaction_decision_tenant_id")
        ),
    )
    op.create_table(
        "curation_choice",
        *_record(
            sa.Column("conversation_id", sa.String(length=32), nullable=False),
            sa.Column("keep", sa.Boolean(), nullable=False),
            sa.Column("actor", sa.Text(), nullable=False),
        ),
        _of_tenant("curation_choice"),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversation.id"],
            name=op.f("fk_curation_choice_conversation_id_conversation"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_curation_choice")),
        sa.UniqueConstraint(
            "tenant_id", "conversation_id", name=op.f("uq_curation_choice_tenant_id")
        ),
    )
    op.create_table(
        "curation_scan",
        *_record(
            sa.Column("conversations", sa.BigInteger(), nullable=False),
            sa.Column("body", _JSON, nullable=False),
        ),
        _of_tenant("curation_scan"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_curation_scan")),
    )
    for table in ("redaction_decision", "curation_choice", "curation_scan"):
        op.create_index(op.f(f"ix_{table}_tenant_id"), table, ["tenant_id"], unique=False)


def downgrade() -> None:
    """Take back."""
    for table in ("curation_scan", "curation_choice", "redaction_decision"):
        op.drop_table(table)
    op.drop_column("tenant", "curation_rules")
    op.drop_column("tenant", "masked_terms")

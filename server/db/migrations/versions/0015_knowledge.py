"""Knowledge: articles of a tenant, their versions, and the pieces that are searched."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "tenant",
        sa.Column("knowledge_revision", sa.Integer(), server_default="0", nullable=False),
    )
    op.create_table(
        "knowledge_upload",
        *_common(),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("embedded", sa.Integer(), nullable=False),
        sa.Column("report", _JSON, nullable=True),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        *_keys("knowledge_upload"),
    )
    op.create_table(
        "article",
        *_common(),
        sa.Column("name", sa.Text(), nullable=False),
        *_keys("article"),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_article_tenant_id")),
    )
    op.create_table(
        "article_version",
        *_common(),
        sa.Column("article_id", sa.String(length=32), nullable=False),
        sa.Column("upload_id", sa.String(length=32), nullable=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("format", sa.String(length=20), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("source_sha256", sa.String(length=64), nullable=False),
        sa.Column("sections", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("characters", sa.Integer(), nullable=False),
        sa.Column("text_bytes", sa.BigInteger(), nullable=False),
        sa.Column("replaced_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["article_id"],
            ["article.id"],
            name=op.f("fk_article_version_article_id_article"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            ["knowledge_upload.id"],
            name=op.f("fk_article_version_upload_id_knowledge_upload"),
            ondelete="SET NULL",
        ),
        *_keys("article_version"),
        sa.UniqueConstraint("article_id", "number", name=op.f("uq_article_version_article_id")),
    )
    op.create_table(
        "article_chunk",
        *_common(),
        sa.Column("version_id", sa.String(length=32), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        sa.Column("headings", _JSON, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["article_version.id"],
            name=op.f("fk_article_chunk_version_id_article_version"),
            ondelete="CASCADE",
        ),
        *_keys("article_chunk"),
        sa.UniqueConstraint("version_id", "ordinal", name=op.f("uq_article_chunk_version_id")),
    )
    for table, column in (
        ("knowledge_upload", "tenant_id"),
        ("knowledge_upload", "sha256"),
        ("knowledge_upload", "state"),
        ("article", "tenant_id"),
        ("article_version", "tenant_id"),
        ("article_version", "upload_id"),
        ("article_chunk", "tenant_id"),
    ):
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column], unique=False)


def downgrade() -> None:
    """Undo: every article is gone."""
    for table in ("article_chunk", "article_version", "article", "knowledge_upload"):
        op.drop_table(table)
    op.drop_column("tenant", "knowledge_revision")


def _common() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )


def _keys(table: str) -> tuple[sa.Constraint, ...]:
    return (
        sa.ForeignKeyConstraint(
            ["tenant_id"],
            ["tenant.id"],
            name=op.f(f"fk_{table}_tenant_id_tenant"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
    )

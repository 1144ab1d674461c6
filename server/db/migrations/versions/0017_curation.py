"""Words that redaction always replaces."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "tenant", sa.Column("masked_terms", sa.JSON().with_variant(JSONB(), "postgresql"), server_default="[]", nullable=False)
    )


def downgrade() -> None:
    """Take back."""
    op.drop_column("tenant", "masked_terms")

"""What a look through the conversations says of each: its languages."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Apply."""
    op.add_column("curation_scan", sa.Column("labels", _JSON, server_default="{}", nullable=False))


def downgrade() -> None:
    """Take back."""
    op.drop_column("curation_scan", "labels")

"""Who started a job."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Of older jobs nobody knows."""
    op.add_column("job", sa.Column("actor", sa.Text(), nullable=True))


def downgrade() -> None:
    """Take back. Not as a batch: that remakes the table on SQLite, and its events go with it."""
    op.drop_column("job", "actor")

"""What redaction replaces and leaves alone for a tenant gets the names that the API has."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# no batch operation: on SQLite it would make the table anew, and dropping the old one would delete
# all rows that refer to a tenant


def upgrade() -> None:
    """Apply."""
    op.execute("ALTER TABLE tenant RENAME COLUMN number_patterns TO custom_patterns")
    op.execute("ALTER TABLE tenant RENAME COLUMN keep TO allowlist")


def downgrade() -> None:
    """Undo."""
    op.execute("ALTER TABLE tenant RENAME COLUMN allowlist TO keep")
    op.execute("ALTER TABLE tenant RENAME COLUMN custom_patterns TO number_patterns")

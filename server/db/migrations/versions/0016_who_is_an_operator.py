"""Entries of the audit log know whether an operator acted: a tenant's people are not told who that is."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; of what was done before, operators are those who are it now."""
    op.add_column(
        "audit_entry",
        sa.Column("by_operator", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    entry = sa.table(
        "audit_entry",
        sa.column("by_operator", sa.Boolean),
        sa.column("actor_kind", sa.String),
        sa.column("actor_id", sa.String),
    )
    person = sa.table("person", sa.column("id", sa.String), sa.column("is_operator", sa.Boolean))
    operators = sa.select(person.c.id).where(person.c.is_operator.is_(sa.true()))
    op.execute(
        entry.update()
        .where(
            (entry.c.actor_kind == "operator_key")
            | ((entry.c.actor_kind == "person") & entry.c.actor_id.in_(operators))
        )
        .values(by_operator=True)
    )


def downgrade() -> None:
    """Take back."""
    op.drop_column("audit_entry", "by_operator")

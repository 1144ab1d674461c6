"""Who made a key, what a webhook's receiver answered, and an index to list deliveries by."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_INDEX = "ix_webhook_delivery_endpoint_id"


def upgrade() -> None:
    """Apply. Of older keys and deliveries nobody knows."""
    op.add_column("api_key", sa.Column("actor", sa.Text(), nullable=True))
    op.add_column("webhook_delivery", sa.Column("response_status", sa.Integer(), nullable=True))
    op.add_column("webhook_delivery", sa.Column("response_text", sa.Text(), nullable=True))
    op.drop_index(op.f(_INDEX), "webhook_delivery")
    op.create_index(op.f(_INDEX), "webhook_delivery", ["endpoint_id", "id"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index(op.f(_INDEX), "webhook_delivery")
    op.create_index(op.f(_INDEX), "webhook_delivery", ["endpoint_id"], unique=False)
    op.drop_column("webhook_delivery", "response_text")
    op.drop_column("webhook_delivery", "response_status")
    op.drop_column("api_key", "actor")

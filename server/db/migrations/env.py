"""Alembic's entry: migrates on the connection it is given (see ``server/db/migrate.py``)."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from server.db.models import DateTimeUTC, Json, Record, SafeString


def render_item(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:  # noqa: ANN401
    """Write our column types as plain SQLAlchemy, so that old migrations need none of our code."""
    if kind == "type" and isinstance(item, DateTimeUTC):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, SafeString):
        return f"sa.{item.impl_instance!r}"
    if kind == "type" and isinstance(item, Json):
        autogen.imports.add("from sqlalchemy.dialects.postgresql import JSONB")
        return 'sa.JSON().with_variant(JSONB(), "postgresql")'
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Record.metadata,
    render_item=render_item,
    render_as_batch=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()

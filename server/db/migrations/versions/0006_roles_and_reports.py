"""Stored conversations, and imports' options and reports, get the names of fields that are written now."""

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ROWS_AT_ONCE = 500
Names = Mapping[str, str]

TURN = {"speaker": "role"}
OPTIONS = {"speakers": "roles"}
REPORT = {"speakers": "roles", "trimmed": "partially_rejected"}
NOTES = {"speakers": "roles"}


def upgrade() -> None:
    """Apply. Digests of conversations are of what was said, not of names: they stay."""
    _rename(lambda names: names)


def downgrade() -> None:
    """Undo."""
    _rename(lambda names: {new: old for old, new in names.items()})


def _rename(which: Callable[[Names], Names]) -> None:
    """Rename all fields; ``which`` makes old -> new of a list of names, or the other way round."""

    def in_body(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "turns": [_renamed(turn, which(TURN)) for turn in body["turns"]]}

    def in_options(options: dict[str, Any]) -> dict[str, Any]:
        renamed = _renamed(options, which(OPTIONS))
        if "mapping" in renamed:
            renamed["mapping"] = _renamed(renamed["mapping"], which(TURN))
        return renamed

    def in_report(report: dict[str, Any]) -> dict[str, Any]:
        renamed = _renamed(report, which(REPORT))
        if "notes" in renamed:
            renamed["notes"] = _renamed(renamed["notes"], which(NOTES))
        return renamed

    _rewrite("conversation", "body", in_body)
    _rewrite("import", "options", in_options)
    _rewrite("import", "report", in_report)


def _renamed(values: dict[str, Any], names: Names) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def _rewrite(table: str, column: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the JSON of a column, some rows at a time, so that memory is bounded."""
    kind = sa.JSON().with_variant(JSONB(), "postgresql")
    rows = sa.table(table, sa.column("id", sa.String), sa.column(column, kind))
    query = sa.select(rows.c.id, rows.c[column]).where(rows.c[column].is_not(sa.null()))
    update = (
        rows.update()
        .where(rows.c.id == sa.bindparam("key"))
        .values({column: sa.bindparam("value", type_=kind)})
    )
    connection, last = op.get_bind(), ""
    while True:
        after = query.where(rows.c.id > last).order_by(rows.c.id).limit(ROWS_AT_ONCE)
        found = connection.execute(after).all()
        if not found:
            return
        connection.execute(update, [{"key": key, "value": change(old)} for key, old in found])
        last = found[-1][0]

"""A condition: a JSON object has a text under a key.

SQLAlchemy's own operator writes the key into SQLite's path language, which cannot express one with a
quotation mark.
"""

from typing import Any

from sqlalchemy import Boolean, ColumnElement, Text, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from server.db.models import storable


class _Holds(GenericFunction[bool]):
    type = Boolean()
    inherit_cache = True
    _register = False


def json_contains(column: InstrumentedAttribute[Any], key: str, value: str) -> ColumnElement[bool]:
    """Whether the object in a JSON column has this text under this key; false for a null column."""
    return _Holds(
        column,
        bindparam(None, storable(key), type_=Text()),
        bindparam(None, storable(value), type_=Text()),
    )


@compiles(_Holds, "sqlite")
def _on_sqlite(element: _Holds, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    column, key, value = (compiler.process(part, **options) for part in element.clauses)
    where = f"json_each.key = {key} AND json_each.value = {value}"
    return f"EXISTS (SELECT 1 FROM json_each({column}) WHERE {where})"  # noqa: S608 - all bound


@compiles(_Holds, "postgresql")
def _on_postgresql(element: _Holds, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    column, key, value = (compiler.process(part, **options) for part in element.clauses)
    return f"COALESCE({column} ->> {key} = {value}, false)"

"""The tenant filter: every query of a tenant's rows begins here.

    of_tenant(tenant_id).select(File).where(File.purpose == "batch")
    of_tenant(tenant_id).delete(UploadPart).where(UploadPart.upload_id == upload.id)
    await of_tenant(tenant_id).get(session, Job, job_id, lock=True)
    across_tenants("the worker looks for everyone's queued jobs").select(Job.id)
    of_installation().select(Person).where(Person.email == email)

The statements are SQLAlchemy's own, to complete and execute as usual. The session, and with it the
transaction, is the caller's. ``tests/test_tenant_scope.py`` refuses a query that begins elsewhere.
"""

from typing import Any, TypeAlias, TypeVar, overload

import sqlalchemy
from sqlalchemy import (
    Column,
    ColumnElement,
    Delete,
    Select,
    SelectBase,
    SQLColumnExpression,
    Table,
    Update,
    inspect,
)
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql import visitors

from server.db.models import INSTALLATION_WIDE, Record, Tenant

R = TypeVar("R", bound=Record)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
_Selected: TypeAlias = type[A] | SQLColumnExpression[A]

# by table: the column that says whose a row is
_OWNERS: dict[str, InstrumentedAttribute[Any]] = {
    str(model.__tablename__): inspect(model)
    .attrs["id" if model is Tenant else "tenant_id"]
    .class_attribute
    for model in Record.__subclasses__()
    if model not in INSTALLATION_WIDE
}
_INSTALLATION_WIDE = {str(model.__tablename__) for model in INSTALLATION_WIDE}


class TenantScope:
    """Makes queries of one tenant's rows, or of all tenants'.

    Each table named in ``select``, ``update`` or ``delete`` is filtered. A table that only a later
    ``join`` names is not: select it as well, or compare its ``tenant_id`` in the join's condition.
    For an outer join do the latter, and select it with ``add_columns``: a filter would make the join
    an inner one.
    """

    def __init__(self, tenant_id: str | None, *, all_tenants: bool = False) -> None:
        self._tenant_id = tenant_id
        self._all_tenants = all_tenants

    @overload
    def select(self, _0: _Selected[A], /) -> Select[A]: ...
    @overload
    def select(self, _0: _Selected[A], _1: _Selected[B], /) -> Select[A, B]: ...
    @overload
    def select(
        self, _0: _Selected[A], _1: _Selected[B], _2: _Selected[C], /
    ) -> Select[A, B, C]: ...
    @overload
    def select(self, *entities: Any) -> Select[*tuple[Any, ...]]: ...  # noqa: ANN401 - four or more
    def select(self, *entities: Any) -> Select[*tuple[Any, ...]]:
        """A SELECT of this scope's rows: of models, their columns, or functions of columns."""
        return sqlalchemy.select(*entities).where(*self._filters(*entities))

    def update(self, model: type[Record]) -> Update:
        """An UPDATE of this scope's rows."""
        return sqlalchemy.update(model).where(*self._filters(model))

    def delete(self, model: type[Record]) -> Delete:
        """A DELETE of this scope's rows."""
        return sqlalchemy.delete(model).where(*self._filters(model))

    async def get(
        self, session: AsyncSession, model: type[R], row_id: str | None, *, lock: bool = False
    ) -> R | None:
        """The row with this id; None where there is none in this scope.

        ``lock`` reads the row anew and keeps others from changing it until the transaction ends.
        """
        query = self.select(model).where(model.id == row_id)
        if lock:
            query = query.with_for_update().execution_options(populate_existing=True)
        return await session.scalar(query)

    async def get_one(
        self, session: AsyncSession, model: type[R], row_id: str | None, *, lock: bool = False
    ) -> R:
        """The row with this id, as ``get``, where it is known to be there.

        Raises:
            NoResultFound: there is none in this scope.
        """
        found = await self.get(session, model, row_id, lock=lock)
        if found is None:
            raise NoResultFound(f"no row {row_id} in {model.__tablename__}")
        return found

    def _filters(self, *entities: Any) -> list[ColumnElement[bool]]:  # noqa: ANN401 - as select's
        if self._all_tenants:
            return []
        names = [name for entity in entities for name in _tables(entity)]
        if not names:
            raise TypeError("a tenant's query must name one of its tables or their columns")
        if _INSTALLATION_WIDE & set(names):
            raise TypeError("this table is no tenant's: begin at of_installation()")
        return [_OWNERS[name] == self._tenant_id for name in dict.fromkeys(names)]


class InstallationScope(TenantScope):
    """Makes queries of tables that belong to the installation: people, their sessions and links."""

    def __init__(self) -> None:
        super().__init__(None)

    def _filters(self, *entities: Any) -> list[ColumnElement[bool]]:  # noqa: ANN401 - as select's
        names = {name for entity in entities for name in _tables(entity)}
        if not names or names - _INSTALLATION_WIDE:
            raise TypeError("this query must name tables of the installation, and no tenant's")
        return []


def of_tenant(tenant_id: str) -> TenantScope:
    """Queries of the rows of one tenant, and of its own row in ``tenant``."""
    return TenantScope(tenant_id)


def of_operator() -> TenantScope:
    """Queries of the rows that belong to no tenant: the operator's keys."""
    return TenantScope(None)


def of_installation() -> InstallationScope:
    """Queries of the rows that have no tenant by their kind (``INSTALLATION_WIDE``): people."""
    return InstallationScope()


def across_tenants(reason: str) -> TenantScope:
    """Queries of every tenant's rows: sweeps, the worker's polls, what the operator may see.

    ``reason`` is for the reader: why no tenant is named, as a literal of at least three words.
    """
    return TenantScope(None, all_tenants=True)


def _tables(entity: Any) -> list[str]:  # noqa: ANN401 - what select takes
    """The tables that a model, a column or an expression of columns is from."""
    if isinstance(entity, InstrumentedAttribute):
        entity = entity.class_
    if isinstance(entity, type) and issubclass(entity, Record):
        return [str(entity.__tablename__)]
    parts = list(visitors.iterate(entity))
    if any(isinstance(part, SelectBase) for part in parts):
        raise TypeError("a tenant's query cannot select from a subquery: scope that one")
    columns = [part for part in parts if isinstance(part, Column)]
    return [column.table.name for column in columns if isinstance(column.table, Table)]

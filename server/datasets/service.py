"""Dataset versions: listed and looked up. ``creation`` makes them, and a deletion removes them."""

from sqlalchemy.ext.asyncio import AsyncSession

from server.audit.schemas import Subject
from server.db.models import DatasetVersion, Tenant
from server.db.scope import of_tenant
from server.errors import NotFound


def subject(row: DatasetVersion) -> Subject:
    """A dataset version as the audit log names it."""
    return Subject("dataset", row.id, row.sha256[:8])


async def list_datasets(session: AsyncSession, tenant: Tenant) -> list[DatasetVersion]:
    """A tenant's dataset versions, newest first."""
    query = of_tenant(tenant.id).select(DatasetVersion).order_by(DatasetVersion.id.desc())
    return list(await session.scalars(query))


async def get_dataset(session: AsyncSession, tenant: Tenant, sha256: str) -> DatasetVersion:
    """One dataset version of this tenant.

    Raises:
        NotFound: no such version.
    """
    query = of_tenant(tenant.id).select(DatasetVersion).where(DatasetVersion.sha256 == sha256)
    row = await session.scalar(query)
    if row is None:
        raise NotFound(f"There is no dataset '{sha256}'.", code="dataset_not_found")
    return row

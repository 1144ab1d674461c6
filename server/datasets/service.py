"""Dataset versions: listed and looked up. ``creation`` makes them, and a deletion removes them."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import DatasetVersion, Tenant
from server.errors import NotFound


async def list_datasets(session: AsyncSession, tenant: Tenant) -> list[DatasetVersion]:
    """A tenant's dataset versions, newest first."""
    query = select(DatasetVersion).where(DatasetVersion.tenant_id == tenant.id)
    return list(await session.scalars(query.order_by(DatasetVersion.id.desc())))


async def get_dataset(session: AsyncSession, tenant: Tenant, sha256: str) -> DatasetVersion:
    """One dataset version of this tenant.

    Raises:
        NotFound: no such version.
    """
    row = await session.scalar(
        select(DatasetVersion).where(
            DatasetVersion.tenant_id == tenant.id, DatasetVersion.sha256 == sha256
        )
    )
    if row is None:
        raise NotFound(f"There is no dataset '{sha256}'.", code="dataset_not_found")
    return row

"""Uploads of transcripts as they arrived: kept until they have been read, for a while at most.

They hold the personal data that redaction removes. So they go when the last import of them has ended,
or ``Tenant.keep_upload_days`` later; also when it failed, since a new try sends the file again.
``SourceFile.removed_at`` says that they are gone; the bytes are deleted after that is committed.
"""

import datetime

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Import, SourceFile, Tenant, now
from server.db.scope import TenantScope, across_tenants, of_tenant

UNFINISHED = ("draft", "queued", "running")


async def let_go(session: AsyncSession, source_id: str) -> str | None:
    """Call it when an import of a file has ended.

    Returns the file's sha256 if it goes now, for ``try_delete_unreferenced`` after the commit.
    """
    source = await lock(session, SourceFile.id == source_id)
    if source is None:
        return None
    scope = of_tenant(source.tenant_id)
    days = await session.scalar(scope.select(Tenant.keep_upload_days))
    unfinished = scope.select(Import.id).where(
        Import.source_file_id == source.id, Import.state.in_(UNFINISHED)
    )
    if days or await session.scalar(unfinished.limit(1)) is not None:
        return None
    source.removed_at = now()
    await session.flush()
    return source.sha256


async def delete_read(session: AsyncSession) -> set[str]:
    """Let go of every file whose time is over.

    Returns their hashes, for ``try_delete_unreferenced`` after the commit.
    """
    all_tenants = across_tenants("a sweep of each tenant's uploads")
    kept = all_tenants.select(SourceFile.id).where(
        SourceFile.tenant_id == Tenant.id, SourceFile.removed_at.is_(None)
    )
    gone: set[str] = set()
    for tenant_id, days in await session.execute(
        select(Tenant.id, Tenant.keep_upload_days).where(kept.exists())
    ):
        scope = of_tenant(tenant_id)
        wanted = all_tenants.select(Import.id).where(
            Import.source_file_id == SourceFile.id,
            or_(
                Import.state.in_(UNFINISHED),
                Import.finished_at > now() - datetime.timedelta(days=days),
            ),
        )
        over = (SourceFile.removed_at.is_(None), ~wanted.exists())
        # locked first and checked again: the same bytes may have been uploaded in between
        found = scope.select(SourceFile.id).where(*over).with_for_update()
        ids = list(await session.scalars(found))
        if ids:
            removal = scope.update(SourceFile).where(SourceFile.id.in_(ids), *over)
            hashes = removal.values(removed_at=now()).returning(SourceFile.sha256)
            gone.update(await session.scalars(hashes))
    return gone


async def lock(
    session: AsyncSession, *which: ColumnElement[bool], scope: TenantScope | None = None
) -> SourceFile | None:
    """A source file as it is now, held until the transaction ends.

    ``scope`` is its tenant's scope; without one ``which`` is the file's id, from a row of the tenant.
    """
    scope = scope or across_tenants("the id comes from a row of the tenant")
    query = scope.select(SourceFile).where(*which)
    query = query.with_for_update().execution_options(populate_existing=True)
    return (await session.scalars(query)).one_or_none()

"""Imports: queued by a request, listed and looked up. ``importing`` does the work, in a worker."""

import datetime
from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.importers import IMPORTERS, ImportOptions
from server.audit import service as audit
from server.audit.schemas import Subject
from server.db.models import ConversationRow, Import, SourceFile, Tenant, now
from server.db.scope import across_tenants, of_tenant
from server.errors import Conflict, Invalid, NotFound
from server.files import originals
from server.files.names import clean_name

DRAFT_AGE = datetime.timedelta(days=1)
"""How long an upload whose columns nobody has confirmed is kept: it holds personal data."""
_NOT_CONFIRMED = {
    "code": "not_confirmed",
    "message": "Nobody confirmed its columns within a day, and the file was removed. Upload it again.",
}


async def queue_import(
    session: AsyncSession,
    tenant: Tenant,
    *,
    sha256: str,
    size_bytes: int,
    filename: str,
    importer: str | None = None,
    options: ImportOptions | None = None,
    draft: bool = False,
) -> tuple[Import, SourceFile]:
    """Record an upload whose bytes are stored, and queue its import.

    The same bytes with the same importer and options are the same import. It is returned as it is,
    unless it failed or is a draft. A ``draft`` is not queued: it waits for ``confirm``.

    Raises:
        Invalid: there is no importer of that name.
    """
    if importer is not None and importer not in IMPORTERS:
        known = ", ".join(IMPORTERS)
        raise Invalid(f"There is no importer '{importer}'; there are: {known}.", param="importer")
    # one upload of a tenant after the other, so that equal ones find each other
    await session.refresh(tenant, with_for_update=True)
    mine = of_tenant(tenant.id)
    source = await originals.lock(session, SourceFile.sha256 == sha256, scope=mine)
    if source is None:
        source = SourceFile(
            tenant_id=tenant.id,
            filename=clean_name(filename),
            sha256=sha256,
            size_bytes=size_bytes,
        )
        session.add(source)
        await session.flush()
    given: dict[str, Any] = msgspec.to_builtins(options or ImportOptions())
    imports = mine.select(Import)
    for row in await session.scalars(
        imports.where(Import.source_file_id == source.id, Import.state.not_in(("draft", "failed")))
    ):
        if importer in {None, row.importer} and row.options == given:
            return row, source
    source.removed_at = None
    row = Import(
        tenant_id=tenant.id,
        source_file_id=source.id,
        importer=importer,
        options=given,
        state="draft" if draft else "queued",
    )
    session.add(row)
    await session.flush()
    audit.record(
        session,
        "transcripts.uploaded",
        tenant_id=tenant.id,
        subject=subject(row, source),
        details={"bytes": size_bytes, "format": importer or "to be found out"},
    )
    return row, source


async def confirm(
    session: AsyncSession, tenant: Tenant, import_id: str, *, options: ImportOptions
) -> Import:
    """Queue a draft, to be read with these options.

    Raises:
        NotFound: no such import.
        Conflict: it is no draft (any more).
    """
    row = await of_tenant(tenant.id).get(session, Import, import_id, lock=True)
    if row is None:
        raise NotFound(f"There is no import '{import_id}'.", code="import_not_found")
    if row.state != "draft":
        raise Conflict("Its columns were confirmed already.", code="import_confirmed")
    row.options = msgspec.to_builtins(options)
    row.state = "queued"
    source = await of_tenant(tenant.id).get(session, SourceFile, row.source_file_id)
    audit.record(
        session, "transcripts.confirmed", tenant_id=tenant.id, subject=subject(row, source)
    )
    return row


def subject(row: Import, source: SourceFile | None) -> Subject:
    """An import as the audit log names it: by its file."""
    return Subject("import", row.id, clean_name(source.filename) if source else row.id)


async def expire_drafts(session: AsyncSession) -> None:
    """Give up drafts that nobody confirmed within ``DRAFT_AGE``, so that their files go."""
    query = across_tenants("a sweep of each tenant's uploads").update(Import)
    await session.execute(
        query.where(Import.state == "draft", Import.created_at < now() - DRAFT_AGE)
        .values(state="failed", error=_NOT_CONFIRMED, finished_at=now())
        .execution_options(synchronize_session=False)
    )


async def list_imports(
    session: AsyncSession, tenant: Tenant, *, limit: int = 100
) -> list[tuple[Import, SourceFile]]:
    """A tenant's imports, newest first."""
    query = (
        of_tenant(tenant.id)
        .select(Import, SourceFile)
        .join(SourceFile, Import.source_file_id == SourceFile.id)
        .order_by(Import.id.desc())
        .limit(limit)
    )
    return [(row, source) for row, source in await session.execute(query)]


async def list_failed(
    session: AsyncSession, tenant: Tenant, *, since: datetime.datetime, limit: int = 10
) -> list[tuple[Import, SourceFile]]:
    """The tenant's imports that failed since then, newest first; not those whose file was tried again."""
    newest = of_tenant(tenant.id).select(func.max(Import.id)).group_by(Import.source_file_id)
    query = (
        of_tenant(tenant.id)
        .select(Import, SourceFile)
        .join(SourceFile, Import.source_file_id == SourceFile.id)
        .where(Import.state == "failed", Import.finished_at >= since, Import.id.in_(newest))
        .order_by(Import.id.desc())
        .limit(limit)
    )
    return [(row, source) for row, source in await session.execute(query)]


async def count_conversations(session: AsyncSession, tenant_ids: Collection[str]) -> dict[str, int]:
    """How many conversations each of these tenants, by id, has; those without any are absent."""
    query = across_tenants("a person may belong to several tenants").select(
        ConversationRow.tenant_id, func.count(ConversationRow.id)
    )
    query = query.where(ConversationRow.tenant_id.in_(tenant_ids))
    rows = await session.execute(query.group_by(ConversationRow.tenant_id))
    return dict(rows.all())


async def get_import(
    session: AsyncSession, tenant: Tenant, import_id: str
) -> tuple[Import, SourceFile]:
    """One import of this tenant.

    Raises:
        NotFound: no such import.
    """
    query = (
        of_tenant(tenant.id)
        .select(Import, SourceFile)
        .join(SourceFile, Import.source_file_id == SourceFile.id)
        .where(Import.id == import_id)
    )
    found = (await session.execute(query)).one_or_none()
    if found is None:
        raise NotFound(f"There is no import '{import_id}'.", code="import_not_found")
    row, source = found
    return row, source

"""Uploads of transcripts as they arrived: kept until they have been read, for a while at most.

They hold the personal data that redaction takes out, so they go when no import of them is left to
end, ``Tenant.keep_upload_days`` later where that is set: what could not be read, too, since trying
again begins with sending it again. A row says that they are gone (``SourceFile.removed_at``); the
bytes are discarded after that is committed.
"""

import datetime

from sqlalchemy import exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Import, SourceFile, Tenant, now

UNFINISHED = ("queued", "running")


async def let_go(session: AsyncSession, source_id: str) -> str | None:
    """Call where an import of a file has ended: its sha256, to discard after commit, if it goes now."""
    source = await lock(session, SourceFile.id == source_id)
    if source is None:
        return None
    days = await session.scalar(
        select(Tenant.keep_upload_days).where(Tenant.id == source.tenant_id)
    )
    unfinished = exists().where(Import.source_file_id == source.id, Import.state.in_(UNFINISHED))
    if days or await session.scalar(select(unfinished)):
        return None
    source.removed_at = now()
    await session.flush()
    return source.sha256


async def delete_read(session: AsyncSession) -> set[str]:
    """Let go of all whose time is over; returns their hashes, to discard after the commit."""
    kept = exists().where(SourceFile.tenant_id == Tenant.id, SourceFile.removed_at.is_(None))
    gone: set[str] = set()
    for tenant_id, days in await session.execute(
        select(Tenant.id, Tenant.keep_upload_days).where(kept)
    ):
        wanted = exists().where(
            Import.source_file_id == SourceFile.id,
            or_(
                Import.state.in_(UNFINISHED),
                Import.finished_at > now() - datetime.timedelta(days=days),
            ),
        )
        over = (SourceFile.tenant_id == tenant_id, SourceFile.removed_at.is_(None), ~wanted)
        # locked first and looked at again: an upload of the same bytes may have come in between
        ids = list(await session.scalars(select(SourceFile.id).where(*over).with_for_update()))
        if ids:
            removal = update(SourceFile).where(SourceFile.id.in_(ids), *over)
            hashes = removal.values(removed_at=now()).returning(SourceFile.sha256)
            gone.update(await session.scalars(hashes))
    return gone


async def lock(session: AsyncSession, *which: object) -> SourceFile | None:
    """A source file as it is now, held until the transaction ends."""
    query = select(SourceFile).where(*which)  # type: ignore[arg-type]
    query = query.with_for_update().execution_options(populate_existing=True)
    return (await session.scalars(query)).one_or_none()

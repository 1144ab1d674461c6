"""Files of ``/v1/files``: rows of a tenant, whose bytes are in the blob store.

An expired file is not found any more, whether or not the sweep has removed it.
"""

import datetime
import re
from typing import Literal

from sqlalchemy import or_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import ColumnElement

from server.audit import service as audit
from server.audit.schemas import Subject
from server.db.models import File, now
from server.db.scope import across_tenants, of_tenant
from server.errors import Invalid, NotFound
from server.storage.blobs import BlobStore
from server.storage.references import acquire_reference

PUBLIC_ID = re.compile(r"file-([0-9a-f]{32})")


def public_id(file: File) -> str:
    """The id that clients know it by."""
    return f"file-{file.id}"


async def create(
    session: AsyncSession,
    tenant_id: str,
    *,
    blobs: BlobStore,
    sha256: str,
    size_bytes: int,
    filename: str,
    purpose: str,
    keep_seconds: int | None = None,
) -> File:
    """Add a file whose bytes are stored already (``server.storage.references.stored``).

    It expires ``keep_seconds`` after its creation, where that is given.

    Raises:
        Unavailable: its bytes were deleted since, with an equal file; store them again.
    """
    await acquire_reference(session, blobs, sha256)
    moment = now()
    kept = None if keep_seconds is None else datetime.timedelta(seconds=keep_seconds)
    file = File(
        created_at=moment,
        tenant_id=tenant_id,
        sha256=sha256,
        size_bytes=size_bytes,
        filename=filename,
        purpose=purpose,
        expires_at=None if kept is None else moment + kept,
    )
    session.add(file)
    await session.flush()
    audit.record(
        session,
        "file.created",
        tenant_id=tenant_id,
        subject=_subject(file),
        details={"purpose": purpose, "bytes": size_bytes},
    )
    return file


async def get(
    session: AsyncSession, tenant_id: str, file_id: str, *, param: str = "file_id"
) -> File:
    """A tenant's file, by its public id. ``param`` is the parameter that the error names.

    Raises:
        NotFound: the tenant has no such file, or it has expired.
    """
    found = await find(session, tenant_id, file_id)
    if found is None:
        raise NotFound(f"No such File object: {file_id}", param=param)
    return found


async def find(session: AsyncSession, tenant_id: str, file_id: str) -> File | None:
    """A tenant's file, by its public id; None where ``get`` raises."""
    match = PUBLIC_ID.fullmatch(file_id)
    if match is None:
        return None
    query = of_tenant(tenant_id).select(File)
    return await session.scalar(query.where(File.id == match[1], _is_alive()))


async def list_for(
    session: AsyncSession,
    tenant_id: str,
    *,
    limit: int,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> list[File]:
    """A tenant's files in the order of their creation, those after ``after`` (a public id).

    The file ``after`` itself may be gone already: the page begins where it was.

    Raises:
        Invalid: ``after`` is no file's id.
    """
    query = of_tenant(tenant_id).select(File).where(_is_alive())
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    if after is not None:
        match = PUBLIC_ID.fullmatch(after)
        if match is None:
            raise Invalid(f"Invalid value for 'after': no file's id: {after}.", param="after")
        query = query.where(File.id > match[1] if order == "asc" else File.id < match[1])
    by = File.id.asc() if order == "asc" else File.id.desc()
    return list(await session.scalars(query.order_by(by).limit(limit)))


async def delete(session: AsyncSession, tenant_id: str, file_id: str) -> str:
    """Remove a tenant's file; returns its sha256, for ``try_delete_unreferenced`` after the commit.

    Raises:
        NotFound: as ``get``.
    """
    file = await get(session, tenant_id, file_id)
    await session.delete(file)
    await session.flush()
    audit.record(session, "file.deleted", tenant_id=tenant_id, subject=_subject(file))
    return file.sha256


async def delete_expired(session: AsyncSession) -> set[str]:
    """Remove expired files; returns their hashes, for ``try_delete_unreferenced`` after the commit."""
    gone = across_tenants("a sweep of what has expired").delete(File)
    gone = gone.where(File.expires_at <= now())
    return set(await session.scalars(gone.returning(File.sha256)))


def _subject(file: File) -> Subject:
    return Subject("file", file.id, file.filename)


def _is_alive() -> ColumnElement[bool]:
    return or_(File.expires_at.is_(None), File.expires_at > now())

"""Files that arrive in parts: rows of a tenant that live for an hour.

An upload is open (``pending``) until it is completed, cancelled or too old. Each change locks its row
first, so that no part is added to a closed upload.
"""

import datetime
import re
from collections.abc import Sequence

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Upload, UploadPart, UploadState, now
from server.db.scope import TenantScope, across_tenants, of_tenant
from server.errors import Invalid, NotFound
from server.storage.blobs import BlobStore
from server.storage.references import acquire_reference

PUBLIC_ID = re.compile(r"upload_([0-9a-f]{32})")
LIFE = datetime.timedelta(hours=1)
REMEMBERED = datetime.timedelta(hours=24)  # closed uploads: clients may repeat a request
MAX_PART_BYTES = 64 << 20
MAX_PARTS = 10_000
SWEPT_AT_ONCE = 1000


def public_id(upload: Upload) -> str:
    """The id that clients know it by."""
    return f"upload_{upload.id}"


def public_part_id(part: UploadPart) -> str:
    """The id that clients know a part by."""
    return f"part_{part.id}"


def state_of(upload: Upload) -> UploadState:
    """An upload's state now; the row of an expired one may still say ``pending``."""
    if upload.state == "pending" and upload.expires_at <= now():
        return "expired"
    return upload.state


async def create(
    session: AsyncSession,
    tenant_id: str,
    *,
    filename: str,
    purpose: str,
    mime_type: str,
    size_bytes: int,
    keep_seconds: int | None = None,
) -> Upload:
    """Begin an upload of ``size_bytes``; its file will expire after ``keep_seconds``, if given."""
    upload = Upload(
        tenant_id=tenant_id,
        filename=filename,
        purpose=purpose,
        mime_type=mime_type,
        size_bytes=size_bytes,
        file_seconds=keep_seconds,
        expires_at=now() + LIFE,
    )
    session.add(upload)
    await session.flush()
    return upload


async def get(
    session: AsyncSession, tenant_id: str, upload_id: str, *, lock: bool = False
) -> Upload:
    """A tenant's upload, by its public id.

    ``lock`` keeps others from changing it until the transaction ends.

    Raises:
        NotFound: the tenant has no such upload.
    """
    match = PUBLIC_ID.fullmatch(upload_id)
    found = None
    if match is not None:
        found = await of_tenant(tenant_id).get(session, Upload, match[1], lock=lock)
    if found is None:
        raise NotFound(f"No such Upload object: {upload_id}", param="upload_id")
    return found


def require_pending(upload: Upload) -> None:
    """Check that an upload is open.

    Raises:
        Invalid: it was completed or cancelled, or has expired.
    """
    state = state_of(upload)
    if state != "pending":
        raise Invalid(
            f"The upload '{public_id(upload)}' is {state}: begin a new one.",
            param="upload_id",
            code="upload_not_pending",
        )


async def add_part(
    session: AsyncSession,
    tenant_id: str,
    upload_id: str,
    *,
    blobs: BlobStore,
    sha256: str,
    size_bytes: int,
) -> UploadPart:
    """Add a part whose bytes are stored already.

    Raises:
        NotFound: as ``get``.
        Invalid: the upload is closed, or has twice the announced bytes or ``MAX_PARTS`` parts.
        Unavailable: the bytes were deleted since they were stored; store them again.
    """
    upload = await get(session, tenant_id, upload_id, lock=True)
    require_pending(upload)
    total = func.coalesce(func.sum(UploadPart.size_bytes), 0)
    counts = of_tenant(tenant_id).select(func.count(UploadPart.id), total)
    count, size = (await session.execute(counts.where(UploadPart.upload_id == upload.id))).one()
    # twice what was announced: a client may send parts again whose answers it lost
    if count >= MAX_PARTS or size + size_bytes > 2 * upload.size_bytes:
        raise Invalid(
            f"The upload was announced with {upload.size_bytes:,} bytes, and its parts hold more.",
            param="data",
        )
    await acquire_reference(session, blobs, sha256)
    part = UploadPart(
        tenant_id=tenant_id, upload_id=upload.id, sha256=sha256, size_bytes=size_bytes
    )
    session.add(part)
    await session.flush()
    return part


async def cancel(session: AsyncSession, tenant_id: str, upload_id: str) -> tuple[Upload, set[str]]:
    """Close an upload without a file. Cancelling it again changes nothing.

    Returns it and its parts' hashes, for ``try_delete_unreferenced`` after the commit.

    Raises:
        NotFound: as ``get``.
        Invalid: it is completed, or has expired.
    """
    upload = await get(session, tenant_id, upload_id, lock=True)
    if upload.state == "cancelled":
        return upload, set()
    require_pending(upload)
    upload.state = "cancelled"
    hashes = await _drop_parts(session, of_tenant(tenant_id), [upload.id])
    await session.flush()
    return upload, hashes


async def expire_pending(session: AsyncSession) -> set[str]:
    """Close uploads that are too old.

    Returns their parts' hashes, for ``try_delete_unreferenced`` after the commit.
    """
    all_tenants = across_tenants("a sweep of what has expired")
    old = all_tenants.select(Upload).where(Upload.state == "pending", Upload.expires_at <= now())
    uploads = (await session.scalars(old.limit(SWEPT_AT_ONCE).with_for_update())).all()
    for upload in uploads:
        upload.state = "expired"
    hashes = await _drop_parts(session, all_tenants, [upload.id for upload in uploads])
    await session.execute(
        all_tenants.delete(Upload).where(
            Upload.state != "pending", Upload.expires_at <= now() - REMEMBERED
        )
    )
    return hashes


async def _drop_parts(
    session: AsyncSession, scope: TenantScope, upload_ids: Sequence[str]
) -> set[str]:
    if not upload_ids:
        return set()
    gone = scope.delete(UploadPart).where(UploadPart.upload_id.in_(upload_ids))
    return set(await session.scalars(gone.returning(UploadPart.sha256)))

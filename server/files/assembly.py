"""Joins the parts of an upload: first the bytes, outside any transaction, then the rows in one."""

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import File, Upload, UploadPart
from server.db.scope import of_tenant
from server.db.session import Database
from server.errors import Invalid, NotFound
from server.files import service
from server.files.uploads import get, public_part_id, require_pending
from server.storage.blobs import BlobStore
from server.storage.references import stored, try_delete_unreferenced


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@asynccontextmanager
async def assembled(
    database: Database,
    blobs: BlobStore,
    tenant_id: str,
    upload_id: str,
    *,
    part_ids: Sequence[str],
    md5: str | None = None,
) -> AsyncGenerator[str | None]:
    """Store the parts as one file; yields its sha256, or None where the upload is complete already.

    Call ``complete`` within the block: bytes that no row refers to are deleted at its end.

    Raises:
        NotFound: as ``get``.
        Invalid: the upload is closed, has no such part, or its size or md5 is another.
    """
    async with database.reading() as session:
        upload, parts = await _plan(session, tenant_id, upload_id, part_ids)
    if not parts:
        await _check_made(database, blobs, upload, md5)
        yield None
        return
    seen = hashlib.md5(usedforsecurity=False)
    sha256: str | None = None
    async with AsyncExitStack() as stack:
        try:
            sha256, _ = await stack.enter_async_context(
                stored(database, blobs, _joined(blobs, parts, seen), max_bytes=upload.size_bytes)
            )
        except NotFound:  # the upload was closed meanwhile: raise, or find it complete
            async with database.reading() as session:
                upload, parts = await _plan(session, tenant_id, upload_id, part_ids)
            if parts:
                raise
            await _check_made(database, blobs, upload, md5)
        if sha256:
            _check_md5(seen, md5)
        yield sha256
    await try_delete_unreferenced(database, blobs, *{part.sha256 for part in parts})


async def complete(
    session: AsyncSession,
    tenant_id: str,
    upload_id: str,
    *,
    part_ids: Sequence[str],
    blobs: BlobStore,
    sha256: str | None,
) -> tuple[Upload, File | None]:
    """Make the file of an upload whose parts are ``assembled``, and close it.

    Completing it again with the same parts changes nothing and returns the same file, or None if that
    is gone.

    Raises:
        NotFound: as ``get``.
        Invalid: as ``assembled``.
        Unavailable: the bytes were deleted since they were stored; ask again.
    """
    upload, parts = await _plan(session, tenant_id, upload_id, part_ids, lock=True)
    if not parts or sha256 is None:
        return upload, await service.find(session, tenant_id, f"file-{upload.file_id}")
    file = await service.create(
        session,
        tenant_id,
        blobs=blobs,
        sha256=sha256,
        size_bytes=upload.size_bytes,
        filename=upload.filename,
        purpose=upload.purpose,
        keep_seconds=upload.file_seconds,
    )
    upload.state = "completed"
    upload.file_id = file.id
    upload.parts_sha256 = _order_of(part_ids)
    parts_of_it = of_tenant(tenant_id).delete(UploadPart)
    await session.execute(parts_of_it.where(UploadPart.upload_id == upload.id))
    await session.flush()
    return upload, file


async def _plan(
    session: AsyncSession,
    tenant_id: str,
    upload_id: str,
    part_ids: Sequence[str],
    *,
    lock: bool = False,
) -> tuple[Upload, list[UploadPart]]:
    """The upload and its parts in this order; no parts if it was completed with them already."""
    upload = await get(session, tenant_id, upload_id, lock=lock)
    query = of_tenant(tenant_id).select(UploadPart).where(UploadPart.upload_id == upload.id)
    known = {public_part_id(part): part for part in await session.scalars(query)}
    # whoever closes it drops its parts: where they are gone, its state as read before them is old
    await session.refresh(upload, ["state", "parts_sha256"])
    if upload.state == "completed" and upload.parts_sha256 == _order_of(part_ids):
        return upload, []
    require_pending(upload)
    if len(set(part_ids)) != len(part_ids):
        raise Invalid("A part is named twice.", param="part_ids")
    for part_id in part_ids:
        if part_id not in known:
            raise Invalid(f"The upload has no part '{part_id}'.", param="part_ids")
    parts = [known[part_id] for part_id in part_ids]
    total = sum(part.size_bytes for part in parts)
    if total != upload.size_bytes:
        raise Invalid(
            f"The parts hold {total:,} bytes; {upload.size_bytes:,} were announced.",
            param="part_ids",
        )
    return upload, parts


async def _check_made(
    database: Database, blobs: BlobStore, upload: Upload, md5: str | None
) -> None:
    """Compare a completed upload's file, if it still exists, with an md5.

    Raises:
        Invalid: it has another md5.
    """
    if md5 is None:
        return
    async with database.reading() as session:
        file = await service.find(session, upload.tenant_id, f"file-{upload.file_id}")
    if file is None:
        return
    seen = hashlib.md5(usedforsecurity=False)
    try:
        async for chunk in blobs.iterate(file.sha256):
            seen.update(chunk)
    except NotFound:  # deleted meanwhile
        return
    _check_md5(seen, md5)


def _check_md5(seen: _Digest, md5: str | None) -> None:
    if md5 is not None and seen.hexdigest() != md5.lower():
        raise Invalid(f"The parts have the md5 {seen.hexdigest()}, not {md5.lower()}.", param="md5")


async def _joined(
    blobs: BlobStore, parts: Sequence[UploadPart], seen: _Digest
) -> AsyncGenerator[bytes]:
    for part in parts:
        async for chunk in blobs.iterate(part.sha256):
            seen.update(chunk)
            yield chunk


def _order_of(part_ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(part_ids).encode()).hexdigest()

"""Which rows refer to which bytes of the blob store, and when those may be deleted.

Equal bytes of all tenants are stored once; rows refer to them by hash. ``acquire_reference`` belongs
into the transaction that adds such a row, ``delete_if_unreferenced`` after the one that removed it.
The two take turns for each hash, so that bytes with a committed row are never deleted, however close
together an upload and a deletion come.

    async with stored(database, blobs, chunks, max_bytes=limit) as (sha256, size):
        async with database.transaction() as session:
            await acquire_reference(session, blobs, sha256)
            session.add(File(sha256=sha256, size_bytes=size, ...))
"""

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager

import structlog
from sqlalchemy import or_, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import File, KnowledgeUpload, SourceFile, UploadPart
from server.db.scope import across_tenants, of_tenant
from server.db.session import Database
from server.errors import ServerError, Unavailable
from server.storage.blobs import BlobStore

log = structlog.get_logger(__name__)

REFERRERS = (
    SourceFile,
    File,
    UploadPart,
    KnowledgeUpload,
)  # every table whose rows have bytes in the blob store
_KEPT = (SourceFile, KnowledgeUpload)  # whose rows stay when their bytes are deleted


@asynccontextmanager
async def stored(
    database: Database, blobs: BlobStore, chunks: AsyncIterable[bytes], *, max_bytes: int
) -> AsyncGenerator[tuple[str, int]]:
    """Store a stream; yields (sha256, size).

    Commit a row that refers to the bytes within the block: those that no row refers to are deleted at
    its end.

    Raises:
        TooLarge: more than ``max_bytes`` came.
        BlobError: the store failed.
    """
    sha256, size = await blobs.put_stream(chunks, max_bytes=max_bytes)
    answers = True
    try:
        yield sha256, size
    except SQLAlchemyError:
        answers = False  # do not wait for it a second time: the sweep deletes them
        raise
    finally:
        if answers:
            await try_delete_unreferenced(database, blobs, sha256)


async def acquire_reference(session: AsyncSession, blobs: BlobStore, sha256: str) -> None:
    """Keep stored bytes from being deleted until the transaction ends; call it before adding the row.

    Raises:
        Unavailable: they were deleted since they were stored; store them again.
    """
    await _take_turns(session, sha256)
    if not await blobs.exists(sha256):
        raise Unavailable(
            "An equal file was deleted at the same moment. Send it again.", retry_after_seconds=1
        )


async def delete_if_unreferenced(database: Database, blobs: BlobStore, sha256: str) -> bool:
    """Delete bytes that no row refers to, outside any transaction; returns whether there was none."""
    async with database.reading() as session:
        if await _is_used(session, sha256):
            return False
    async with database.transaction() as session:
        await _take_turns(session, sha256)
        if await _is_used(session, sha256):
            return False
        await blobs.delete(sha256)
    return True


async def try_delete_unreferenced(database: Database, blobs: BlobStore, *hashes: str) -> None:
    """``delete_if_unreferenced`` of each; a failure is logged and left to the sweep."""
    for sha256 in hashes:
        try:
            await delete_if_unreferenced(database, blobs, sha256)
        except (ServerError, SQLAlchemyError) as exc:
            log.warning("unused bytes were not removed", sha256=sha256, error=str(exc))


async def owned_by(session: AsyncSession, tenant_id: str) -> set[str]:
    """Hashes of the bytes that a tenant's rows refer to; other tenants' rows may refer to them too."""
    found: set[str] = set()
    for kind in REFERRERS:
        found.update(await session.scalars(of_tenant(tenant_id).select(kind.sha256)))
    return found


async def _is_used(session: AsyncSession, sha256: str) -> bool:
    all_tenants = across_tenants("equal bytes of several tenants are stored once")
    rows = {kind: all_tenants.select(kind.id).where(kind.sha256 == sha256) for kind in REFERRERS}
    for kind in _KEPT:
        rows[kind] = rows[kind].where(kind.removed_at.is_(None))
    used = or_(*(each.exists() for each in rows.values()))
    return bool(await session.scalar(all_tenants.select(used)))


async def _take_turns(session: AsyncSession, sha256: str) -> None:
    """Let one transaction at a time go on with this hash."""
    connection = await session.connection()  # on SQLite, already the only writer
    if connection.dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(:key)")
        await session.execute(lock, {"key": int(sha256[:15], 16)})

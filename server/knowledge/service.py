"""Articles and uploads of them: queued by a request, listed, looked up, deleted.

``importing`` does the work, in a worker; ``search`` finds.
"""

from collections.abc import Collection

import msgspec
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.knowledge.article import MAX_FILE_BYTES, title_of
from server.audit import service as audit
from server.audit.schemas import Subject
from server.db.models import (
    Article,
    ArticleChunk,
    ArticleVersion,
    KnowledgeUpload,
    Tenant,
    now,
)
from server.db.scope import of_tenant
from server.errors import Conflict, NotFound
from server.files.names import clean_name
from server.knowledge.schemas import KnowledgeUsage
from server.settings import Settings

PAGE = 25
ENDED = ("done", "failed", "cancelled")
SEARCHED = ("current", "embedding")
"""States of versions that count: those that are searched, or will be."""
MAX_QUEUED = 1_000
"""Uploads of a tenant that may wait. More articles at once belong into an archive."""


class Listed(msgspec.Struct, frozen=True):
    """An article, the version that is searched, and the one that takes its place when it is embedded."""

    article: Article
    current: ArticleVersion | None
    coming: ArticleVersion | None


def max_bytes(settings: Settings) -> int:
    """The largest file of articles that is taken."""
    return min(settings.max_upload_bytes, MAX_FILE_BYTES)


async def queue_upload(
    session: AsyncSession,
    tenant: Tenant,
    *,
    sha256: str,
    size_bytes: int,
    filename: str,
    name: str = "",
    settings: Settings,
) -> KnowledgeUpload:
    """Record a file whose bytes are stored, and queue its reading.

    Articles of the same name get a new version by it, unless they say the same.

    Raises:
        Conflict: the tenant has as much as it may have, or too many uploads wait.
    """
    await lock_knowledge(session, tenant.id)
    used = await usage(session, tenant.id, settings)
    if used.chunks >= used.max_chunks:
        raise Conflict(
            f"{used.chunks:,} of {used.max_chunks:,} pieces of articles are used: delete an article first.",
            code="knowledge_full",
        )
    if used.text_bytes >= used.max_text_bytes:
        raise Conflict(
            f"{used.text_bytes:,} of {used.max_text_bytes:,} bytes of articles are used, old versions "
            "included: delete an article first.",
            code="knowledge_full",
        )
    mine = of_tenant(tenant.id)
    waiting = await session.scalar(
        mine.select(func.count(KnowledgeUpload.id)).where(KnowledgeUpload.state == "queued")
    )
    if (waiting or 0) >= MAX_QUEUED:
        raise Conflict(
            f"{MAX_QUEUED:,} uploads wait to be read: put many articles into one zip archive.",
            code="too_many_uploads",
        )
    row = KnowledgeUpload(
        tenant_id=tenant.id,
        filename=clean_name(filename),
        name=title_of(name),
        sha256=sha256,
        size_bytes=size_bytes,
        state="queued",
    )
    session.add(row)
    await session.flush()
    audit.record(
        session,
        "knowledge.uploaded",
        tenant_id=tenant.id,
        subject=Subject("article", row.id, row.name or row.filename),
        details={"bytes": size_bytes},
    )
    return row


async def usage(session: AsyncSession, tenant_id: str, settings: Settings) -> KnowledgeUsage:
    """How much a tenant has of what it may have."""
    mine = of_tenant(tenant_id)
    articles = await session.scalar(mine.select(func.count(Article.id)))
    chunks = await session.scalar(
        mine.select(func.coalesce(func.sum(ArticleVersion.chunks), 0)).where(
            ArticleVersion.state.in_(SEARCHED)
        )
    )
    size = await session.scalar(mine.select(func.coalesce(func.sum(ArticleVersion.text_bytes), 0)))
    return KnowledgeUsage(
        articles=articles or 0,
        chunks=int(chunks or 0),
        max_chunks=settings.knowledge_chunks,
        text_bytes=int(size or 0),
        max_text_bytes=settings.knowledge_bytes,
    )


async def list_articles(
    session: AsyncSession,
    tenant_id: str,
    *,
    limit: int = PAGE,
    after: str | None = None,
    name: str | None = None,
) -> list[Listed]:
    """A tenant's articles, newest first; those behind the one with the id ``after``.

    ``name``: only the one that is called so.
    """
    mine = of_tenant(tenant_id)
    query = mine.select(Article).order_by(Article.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Article.id < after)
    if name is not None:
        query = query.where(Article.name == name)
    articles = list(await session.scalars(query))
    versions = mine.select(ArticleVersion).where(
        ArticleVersion.article_id.in_([each.id for each in articles]),
        ArticleVersion.state.in_(SEARCHED),
    )
    found: dict[tuple[str, str], ArticleVersion] = {
        (row.article_id, row.state): row for row in await session.scalars(versions)
    }
    return [
        Listed(each, found.get((each.id, "current")), found.get((each.id, "embedding")))
        for each in articles
    ]


async def get_article(
    session: AsyncSession, tenant_id: str, article_id: str, *, lock: bool = False
) -> Article:
    """One article of this tenant.

    Raises:
        NotFound: no such article.
    """
    row = await of_tenant(tenant_id).get(session, Article, article_id, lock=lock)
    if row is None:
        raise NotFound(f"There is no article '{article_id}'.", code="article_not_found")
    return row


async def existing(session: AsyncSession, tenant_id: str, article_ids: Collection[str]) -> set[str]:
    """Those of these articles that the tenant has now."""
    if not article_ids:
        return set()
    query = of_tenant(tenant_id).select(Article.id).where(Article.id.in_(article_ids))
    return set(await session.scalars(query))


async def list_versions(
    session: AsyncSession, tenant_id: str, article_id: str
) -> list[ArticleVersion]:
    """The versions of an article that are kept, newest first."""
    query = of_tenant(tenant_id).select(ArticleVersion)
    query = query.where(ArticleVersion.article_id == article_id)
    return list(await session.scalars(query.order_by(ArticleVersion.number.desc())))


async def get_version(
    session: AsyncSession, tenant_id: str, article_id: str, number: int | None = None
) -> ArticleVersion:
    """A version of an article; without a number the one that is searched, else the newest.

    Raises:
        NotFound: no such article or version.
    """
    await get_article(session, tenant_id, article_id)
    versions = await list_versions(session, tenant_id, article_id)
    if number is None:
        found = next((each for each in versions if each.state == "current"), None)
        found = found or next(iter(versions), None)
    else:
        found = next((each for each in versions if each.number == number), None)
    if found is None:
        raise NotFound("The article has no such version.", code="version_not_found")
    return found


async def list_chunks(
    session: AsyncSession,
    tenant_id: str,
    version_id: str,
    *,
    limit: int = PAGE,
    after: int = -1,
) -> list[ArticleChunk]:
    """The pieces of a version in their order, behind the one with the ordinal ``after``."""
    query = of_tenant(tenant_id).select(ArticleChunk)
    query = query.where(ArticleChunk.version_id == version_id, ArticleChunk.ordinal > after)
    return list(await session.scalars(query.order_by(ArticleChunk.ordinal).limit(limit)))


async def delete_article(session: AsyncSession, tenant_id: str, article_id: str) -> Article:
    """Delete an article with all its versions: the next search does not find it any more.

    Call ``Database.scrub`` after the commit.

    Raises:
        NotFound: no such article.
    """
    await lock_knowledge(session, tenant_id)
    row = await get_article(session, tenant_id, article_id, lock=True)
    mine = of_tenant(tenant_id)
    versions = mine.select(ArticleVersion.id).where(ArticleVersion.article_id == article_id)
    for statement in (
        mine.delete(ArticleChunk).where(ArticleChunk.version_id.in_(versions)),
        mine.delete(ArticleVersion).where(ArticleVersion.article_id == article_id),
        mine.delete(Article).where(Article.id == article_id),
    ):
        await session.execute(statement.execution_options(synchronize_session=False))
    await count_revision(session, tenant_id)
    audit.record(
        session,
        "knowledge.deleted",
        tenant_id=tenant_id,
        subject=Subject("article", article_id, row.name),
    )
    return row


async def list_uploads(
    session: AsyncSession, tenant_id: str, *, limit: int = PAGE, after: str | None = None
) -> list[KnowledgeUpload]:
    """A tenant's uploads of articles, newest first; those behind the one with the id ``after``."""
    query = of_tenant(tenant_id).select(KnowledgeUpload).order_by(KnowledgeUpload.id.desc())
    if after is not None:
        query = query.where(KnowledgeUpload.id < after)
    return list(await session.scalars(query.limit(limit)))


async def get_upload(
    session: AsyncSession, tenant_id: str, upload_id: str, *, lock: bool = False
) -> KnowledgeUpload:
    """One upload of this tenant.

    Raises:
        NotFound: no such upload.
    """
    row = await of_tenant(tenant_id).get(session, KnowledgeUpload, upload_id, lock=lock)
    if row is None:
        raise NotFound(f"There is no upload '{upload_id}'.", code="upload_not_found")
    return row


async def cancel_upload(session: AsyncSession, tenant_id: str, upload_id: str) -> KnowledgeUpload:
    """Stop the reading of an upload. What is searched already stays; the rest of it is removed.

    Raises:
        NotFound: no such upload.
        Conflict: it has ended.
    """
    row = await get_upload(session, tenant_id, upload_id, lock=True)
    if row.state in ENDED:
        raise Conflict("It has ended already.", code="upload_ended")
    row.state = "cancelled"
    row.finished_at = row.removed_at = now()
    await remove_unfinished(session, tenant_id, upload_id)
    audit.record(
        session,
        "knowledge.cancelled",
        tenant_id=tenant_id,
        subject=Subject("article", row.id, row.name or row.filename),
    )
    return row


async def remove_unfinished(session: AsyncSession, tenant_id: str, upload_id: str) -> None:
    """Remove the versions of an upload that are not searched yet, and articles that had no other."""
    mine = of_tenant(tenant_id)
    unfinished = mine.select(ArticleVersion.id).where(
        ArticleVersion.upload_id == upload_id, ArticleVersion.state == "embedding"
    )
    others = mine.select(ArticleVersion.article_id)
    ids = list(
        await session.scalars(
            mine.select(ArticleVersion.article_id).where(ArticleVersion.id.in_(unfinished))
        )
    )
    for statement in (
        mine.delete(ArticleChunk).where(ArticleChunk.version_id.in_(unfinished)),
        mine.delete(ArticleVersion).where(
            ArticleVersion.upload_id == upload_id, ArticleVersion.state == "embedding"
        ),
    ):
        await session.execute(statement.execution_options(synchronize_session=False))
    for at in range(0, len(ids), 500):
        part = mine.delete(Article).where(
            Article.id.in_(ids[at : at + 500]), Article.id.not_in(others)
        )
        await session.execute(part.execution_options(synchronize_session=False))


async def lock_knowledge(session: AsyncSession, tenant_id: str) -> bool:
    """Let one transaction at a time change a tenant's articles; False where the tenant is gone.

    On PostgreSQL the lock does not stop rows that only refer to the tenant; on SQLite there is one
    writer at a time.
    """
    query = of_tenant(tenant_id).select(Tenant.id).with_for_update(key_share=True)
    return await session.scalar(query) is not None


async def count_revision(session: AsyncSession, tenant_id: str) -> None:
    """Say that what is searched has changed; in the transaction of the change."""
    change = of_tenant(tenant_id).update(Tenant)
    await session.execute(
        change.values(knowledge_revision=Tenant.knowledge_revision + 1).execution_options(
            synchronize_session=False
        )
    )


async def count_unfinished(session: AsyncSession, tenant_id: str) -> int:
    """How many uploads wait or are being read."""
    query = of_tenant(tenant_id).select(func.count(KnowledgeUpload.id))
    return await session.scalar(query.where(KnowledgeUpload.state.not_in(ENDED))) or 0

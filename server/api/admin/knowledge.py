"""Knowledge over HTTP: what a tenant's answers are grounded in."""

from typing import Annotated, Any

from litestar import Controller, Request, delete, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from server.api.admin.upload import post_file, received
from server.api.guards import needs
from server.db.session import Database
from server.embeddings.service import EmbeddingService
from server.knowledge import service
from server.knowledge.asking import MAX_QUESTION_CHARACTERS, find, found_view
from server.knowledge.schemas import (
    ArticleHistory,
    ArticleView,
    ChunkView,
    FoundView,
    KnowledgeForm,
    KnowledgeUploadView,
    KnowledgeUsage,
    article_view,
    chunk_view,
    upload_view,
    version_view,
)
from server.knowledge.search import MAX_COUNT, KnowledgeSearch
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import acquire_reference, try_delete_unreferenced
from server.tenants import service as tenants

MAX_LIMIT = 1000
After = Annotated[
    str | None,
    QueryParameter(max_length=32, description="The last id of the page before this one."),
]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]


class KnowledgeController(Controller):
    """``/admin/tenants/{slug}/knowledge``."""

    path = "/admin/tenants/{slug:str}/knowledge"
    guards = (needs("train"),)

    @post_file("", form=KnowledgeForm)
    async def upload(
        self,
        slug: FromPath[str],
        request: Request[Any, Any, Any],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
        filename: Annotated[
            str, QueryParameter(description="The file's name, where the body is the file itself.")
        ] = "upload",
        name: Annotated[
            str | None,
            QueryParameter(
                max_length=200,
                description="What the article is called, instead of its file; a new file of the same name is a "
                "new version. Of an archive: what stands before its articles' names.",
            ),
        ] = None,
    ) -> KnowledgeUploadView:
        """Store a file of articles, raw or as the part ``file`` of a form, and queue its reading."""
        async with database.reading() as session:
            await tenants.get(session, slug)
        async with (
            received(
                request,
                filename,
                database=database,
                blobs=blobs,
                settings=settings,
                max_bytes=service.max_bytes(settings),
            ) as file,
            database.transaction() as session,
        ):
            tenant = await tenants.get(session, slug)
            await acquire_reference(session, blobs, file.sha256)
            row = await service.queue_upload(
                session,
                tenant,
                sha256=file.sha256,
                size_bytes=file.size_bytes,
                filename=file.filename,
                name=name or file.field("name") or "",
                settings=settings,
            )
            return upload_view(row)

    @get()
    async def list_articles(
        self,
        slug: FromPath[str],
        *,
        database: NamedDependency[Database],
        after: After = None,
        limit: Limit = 100,
        name: Annotated[
            str | None, QueryParameter(max_length=1000, description="Only the one called so.")
        ] = None,
    ) -> list[ArticleView]:
        """A tenant's articles, newest first."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            found = await service.list_articles(
                session, tenant.id, limit=limit, after=after, name=name
            )
            return [article_view(each.article, each.current, each.coming) for each in found]

    @get("/usage")
    async def read_usage(
        self,
        slug: FromPath[str],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> KnowledgeUsage:
        """How much of its quota a tenant has used."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            return await service.usage(session, tenant.id, settings)

    @get("/search")
    async def search(
        self,
        slug: FromPath[str],
        *,
        database: NamedDependency[Database],
        embeddings: NamedDependency[EmbeddingService],
        knowledge: NamedDependency[KnowledgeSearch],
        q: Annotated[
            str, QueryParameter(max_length=MAX_QUESTION_CHARACTERS, description="The question.")
        ],
        count: Annotated[int, QueryParameter(ge=1, le=MAX_COUNT)] = 5,
    ) -> list[FoundView]:
        """The pieces of articles that are nearest to a question, the nearest first."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
        return [
            found_view(each)
            for each in await find(knowledge, embeddings, tenant.id, q, count=count)
        ]

    @get("/uploads")
    async def list_uploads(
        self,
        slug: FromPath[str],
        *,
        database: NamedDependency[Database],
        after: After = None,
        limit: Limit = 100,
    ) -> list[KnowledgeUploadView]:
        """Files of articles and what came of them, newest first."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            found = await service.list_uploads(session, tenant.id, limit=limit, after=after)
            return [upload_view(each) for each in found]

    @get("/uploads/{upload_id:str}")
    async def read_upload(
        self, slug: FromPath[str], upload_id: FromPath[str], database: NamedDependency[Database]
    ) -> KnowledgeUploadView:
        """One file, how far its reading is, and what was left out of it."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            return upload_view(await service.get_upload(session, tenant.id, upload_id))

    @delete("/uploads/{upload_id:str}", status_code=200)
    async def cancel_upload(
        self,
        slug: FromPath[str],
        upload_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
    ) -> KnowledgeUploadView:
        """Stop the reading of a file. Articles of it that are searched already stay."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            row = await service.cancel_upload(session, tenant.id, upload_id)
            stopped = upload_view(row)
        await try_delete_unreferenced(database, blobs, stopped.sha256)
        return stopped

    @get("/{article_id:str}")
    async def read_article(
        self, slug: FromPath[str], article_id: FromPath[str], database: NamedDependency[Database]
    ) -> ArticleHistory:
        """One article, with its versions."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            row = await service.get_article(session, tenant.id, article_id)
            versions = await service.list_versions(session, tenant.id, article_id)
            return ArticleHistory(
                id=row.id,
                name=row.name,
                created_at=row.created_at,
                versions=[version_view(each) for each in versions],
            )

    @get("/{article_id:str}/chunks")
    async def list_chunks(
        self,
        slug: FromPath[str],
        article_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        version: Annotated[
            int | None, QueryParameter(ge=1, description="The one that is searched when absent.")
        ] = None,
        after: Annotated[
            int, QueryParameter(ge=-1, description="The last ordinal of the page before this one.")
        ] = -1,
        limit: Limit = 100,
    ) -> list[ChunkView]:
        """The pieces of an article, in its order."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            found = await service.get_version(session, tenant.id, article_id, version)
            chunks = await service.list_chunks(
                session, tenant.id, found.id, limit=limit, after=after
            )
            return [chunk_view(each) for each in chunks]

    @delete("/{article_id:str}")
    async def remove_article(
        self, slug: FromPath[str], article_id: FromPath[str], database: NamedDependency[Database]
    ) -> None:
        """Delete an article with its history: the next answer does not know it any more."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            await service.delete_article(session, tenant.id, article_id)
        await database.scrub()

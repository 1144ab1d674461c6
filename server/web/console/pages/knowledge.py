"""Knowledge: articles that answers are grounded in, uploads of them, and a question to try.

It works without a script. With one, an upload shows its progress, and what is being read its state.
"""

from http import HTTPStatus
from typing import Any, NamedTuple

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from server.api.upload import UploadedFile
from server.db.models import Tenant
from server.db.session import Database
from server.embeddings.service import EmbeddingService
from server.errors import Conflict, Invalid, NotFound, StorageFull, TooLarge, TooMany, Unavailable
from server.knowledge import listing, service
from server.knowledge.asking import find
from server.knowledge.search import Found, KnowledgeSearch
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import acquire_reference, stored, try_delete_unreferenced
from server.tenants import service as tenants
from server.tenants.schemas import TenantPatch
from server.transcripts.uploads import KINDS
from server.web.console.downloads import csv_file, csv_of_all
from server.web.console.figures import size
from server.web.console.forms import read_form, see_other
from server.web.console.rendering import page
from server.web.console.session import FORM_HEADER, signed_in

_ADMIN = [signed_in("admin")]
TRIED = 5
"""Pieces that a question to try finds."""


class Tried(NamedTuple):
    """A question, what was found, and why nothing could be."""

    question: str = ""
    found: tuple[Found, ...] = ()
    problem: str = ""


class KnowledgeController(Controller):
    """What people see of a tenant's articles, and do with them."""

    include_in_schema = False
    path = "/console/t/{slug:str}/knowledge"
    guards = (signed_in("viewer"),)

    @get()
    async def list_(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        embeddings: NamedDependency[EmbeddingService],
        knowledge: NamedDependency[KnowledgeSearch],
        after: FromQuery[str | None] = None,
        done: FromQuery[str] = "",
        q: FromQuery[str] = "",
    ) -> Response[str]:
        """The tenant's articles, newest first, the form for more, and a question to try."""
        tried = Tried()
        if q.strip():
            tried = await _try(knowledge, embeddings, tenant, q.strip())
        return await _articles_page(
            request, tenant, database, settings, after=after, done=done, tried=tried
        )

    @post(guards=_ADMIN, request_max_body_size=None)
    async def upload(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Store a file as it streams in, and queue it; or say why not."""
        most = service.max_bytes(settings)
        file = UploadedFile(request, filename="upload", max_bytes=most, raw=False)
        try:
            async with (
                stored(database, blobs, file.chunks(), max_bytes=most) as (sha256, length),
                database.transaction() as session,
            ):
                mine = await tenants.get(session, tenant.slug)
                await acquire_reference(session, blobs, sha256)
                row = await service.queue_upload(
                    session,
                    mine,
                    sha256=sha256,
                    size_bytes=length,
                    filename=file.filename,
                    settings=settings,
                )
        except (Invalid, Conflict, TooLarge, StorageFull) as exc:
            return await _articles_page(request, tenant, database, settings, refusal=exc)
        where = f"{_address(tenant)}/uploads/{row.id}"
        if FORM_HEADER in request.headers:  # a script, which would fetch the page twice
            return Response(b"", status_code=HTTPStatus.CREATED, headers={"location": where})
        return see_other(where)

    @get("/articles.csv")
    async def articles_csv(
        self, tenant: NamedDependency[Tenant], database: NamedDependency[Database]
    ) -> Stream:
        """Every article of the tenant, a line each."""
        return await csv_of_all(
            database,
            lambda session, limit, last: service.list_articles(
                session, tenant.id, limit=limit, after=last.article.id if last else None
            ),
            listing.articles_to_csv,
            f"{tenant.slug}-articles.csv",
        )

    @get("/uploads")
    async def list_uploads(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
        after: FromQuery[str | None] = None,
    ) -> Response[str]:
        """The tenant's uploads of articles, newest first."""
        async with database.reading() as session:
            found = await service.list_uploads(
                session, tenant.id, limit=service.PAGE + 1, after=after
            )
        shown = found[: service.PAGE]
        return await page(
            request,
            "knowledge/uploads.html",
            rows=[(row, listing.UPLOAD_STATES[row.state], listing.report_of(row)) for row in shown],
            older=shown[-1].id if len(found) > len(shown) else None,
            after=after,
            size=size,
        )

    @get("/uploads.csv")
    async def uploads_csv(
        self, tenant: NamedDependency[Tenant], database: NamedDependency[Database]
    ) -> Stream:
        """Every upload of articles of the tenant, a line each."""
        return await csv_of_all(
            database,
            lambda session, limit, last: service.list_uploads(
                session, tenant.id, limit=limit, after=last.id if last else None
            ),
            listing.uploads_to_csv,
            f"{tenant.slug}-knowledge-uploads.csv",
        )

    @get("/uploads/{upload_id:str}")
    async def read_upload(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        upload_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """What came of an upload, and how far it is."""
        async with database.reading() as session:
            row = await service.get_upload(session, tenant.id, upload_id)
        report = listing.report_of(row)
        redacted = sorted(report.redacted.items(), key=lambda each: -each[1]) if report else []
        return await page(
            request,
            "knowledge/upload.html",
            row=row,
            state=listing.UPLOAD_STATES[row.state],
            size=size(row.size_bytes),
            report=report,
            skipped=listing.skipped_groups(report) if report else [],
            redacted=[(KINDS.get(kind, kind), f"{count:,}") for kind, count in redacted],
            problem=(row.error or {}).get("message", ""),
        )

    @get("/uploads/{upload_id:str}/left-out.csv")
    async def skipped_csv(
        self,
        tenant: NamedDependency[Tenant],
        upload_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[bytes]:
        """What was left out and the report names, a line each."""
        async with database.reading() as session:
            row = await service.get_upload(session, tenant.id, upload_id)
        report = listing.report_of(row)
        if report is None:
            raise NotFound("This upload has no report yet: it is written when all of it is read.")
        return csv_file(listing.skipped_to_csv(report), f"{tenant.slug}-{upload_id}-left-out.csv")

    @post("/uploads/{upload_id:str}/stop", guards=_ADMIN)
    async def stop(
        self,
        tenant: NamedDependency[Tenant],
        upload_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
    ) -> Response[Any]:
        """Stop the reading of an upload."""
        async with database.transaction() as session:
            row = await service.cancel_upload(session, tenant.id, upload_id)
            sha256 = row.sha256
        await try_delete_unreferenced(database, blobs, sha256)
        return see_other(f"{_address(tenant)}/uploads/{upload_id}")

    @get("/answers")
    async def answers(
        self,
        request: Request[Any, Any, Any],
        done: FromQuery[str] = "",
    ) -> Response[str]:
        """What answers may rest on, and who is told."""
        return await page(request, "knowledge/answers.html", done=done == "saved")

    @post("/answers", guards=_ADMIN)
    async def change_answers(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Change that."""
        form = await read_form(request)
        patch = TenantPatch(
            retrieval=form.get("retrieval") == "yes",
            show_sources=form.get("show_sources") == "yes",
            when_unsupported="needs_person"
            if form.get("when_unsupported") == "needs_person"
            else "answer",
        )
        async with database.transaction() as session:
            await tenants.update(session, tenant.slug, patch)
        return see_other(f"{_address(tenant)}/answers?done=saved")

    @get("/{article_id:str}")
    async def read_article(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        article_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        version: FromQuery[int | None] = None,
        after: FromQuery[int] = -1,
    ) -> Response[str]:
        """An article: the pieces of one version, and its history."""
        async with database.reading() as session:
            row = await service.get_article(session, tenant.id, article_id)
            shown = await service.get_version(session, tenant.id, article_id, version)
            versions = await service.list_versions(session, tenant.id, article_id)
            chunks = await service.list_chunks(
                session, tenant.id, shown.id, limit=service.PAGE + 1, after=after
            )
        return await page(
            request,
            "knowledge/article.html",
            row=row,
            shown=shown,
            versions=versions,
            chunks=chunks[: service.PAGE],
            more=chunks[service.PAGE - 1].ordinal if len(chunks) > service.PAGE else None,
            is_first=after < 0,
        )

    @get("/{article_id:str}/delete", guards=_ADMIN)
    async def ask_to_delete(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        article_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Ask whether to delete an article, by its name."""
        async with database.reading() as session:
            row = await service.get_article(session, tenant.id, article_id)
            versions = await service.list_versions(session, tenant.id, article_id)
        return await page(request, "knowledge/delete.html", row=row, versions=len(versions))

    @post("/{article_id:str}/delete", guards=_ADMIN)
    async def delete(
        self,
        tenant: NamedDependency[Tenant],
        article_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Delete an article with its history."""
        async with database.transaction() as session:
            await service.delete_article(session, tenant.id, article_id)
        await database.scrub()
        return see_other(f"{_address(tenant)}?done=deleted")


async def _try(
    search: KnowledgeSearch, embeddings: EmbeddingService, tenant: Tenant, question: str
) -> Tried:
    try:
        found = await find(search, embeddings, tenant.id, question, count=TRIED)
    except (Invalid, TooMany, Unavailable) as exc:
        return Tried(question, problem=exc.message)
    return Tried(question, tuple(found))


async def _articles_page(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    database: Database,
    settings: Settings,
    *,
    after: str | None = None,
    done: str = "",
    refusal: Invalid | Conflict | TooLarge | StorageFull | None = None,
    tried: Tried = Tried(),  # noqa: B008 - a constant
) -> Response[str]:
    """The list; with a refusal it is an answer of its status, with the message at the field."""
    async with database.reading() as session:
        found = await service.list_articles(session, tenant.id, limit=service.PAGE + 1, after=after)
        used = await service.usage(session, tenant.id, settings)
        going = await service.count_unfinished(session, tenant.id)
    shown = found[: service.PAGE]
    most = service.max_bytes(settings)
    return await page(
        request,
        "knowledge/articles.html",
        status=_status(refusal) if refusal else HTTPStatus.OK,
        rows=[(each, listing.shown_version(each), listing.state_of(each)) for each in shown],
        older=shown[-1].article.id if len(found) > len(shown) else None,
        after=after,
        used=used,
        going=going,
        refusal=refusal.message if refusal else "",
        done=done == "deleted",
        tried=tried,
        formats=listing.formats(),
        max_bytes=most,
        most=size(most),
        size=size,
    )


def _status(exc: Invalid | Conflict | TooLarge | StorageFull) -> HTTPStatus:
    if isinstance(exc, TooLarge):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if isinstance(exc, StorageFull):
        return HTTPStatus.INSUFFICIENT_STORAGE
    if isinstance(exc, Conflict):
        return HTTPStatus.CONFLICT
    return HTTPStatus.UNPROCESSABLE_ENTITY


def _address(tenant: Tenant) -> str:
    return f"/console/t/{tenant.slug}/knowledge"

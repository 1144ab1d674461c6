"""``tenantune knowledge``."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import rich_click as click

from connectors.knowledge import READERS
from connectors.knowledge.ingestion import KnowledgeReport
from server.cli.console import (
    EXIT_FAILED,
    App,
    command,
    escape_controls,
    fail,
    json_option,
    print_json,
    print_message,
    print_table,
    progress_bar,
    tenant_option,
)
from server.cli.encoder import own_encoder
from server.db.models import Article, Tenant
from server.errors import NotFound
from server.knowledge import importing, service
from server.knowledge.asking import find, found_view
from server.knowledge.schemas import (
    ArticleHistory,
    ArticleView,
    KnowledgeUploadView,
    article_view,
    chunk_view,
    upload_view,
    version_view,
)
from server.knowledge.search import MAX_COUNT, KnowledgeSearch
from server.storage.blobs import BlobStore
from server.storage.references import acquire_reference, stored
from server.tenants import service as tenants
from training.locks import is_locked

CHUNK_BYTES = 1 << 20
POLL_SECONDS = 0.3


@click.group()
def knowledge() -> None:
    """Articles that answers are grounded in."""


@knowledge.command(
    "add",
    help="Read files of articles and make them searchable; a file of the same name is a new version. "
    f"Formats are found out: {'; '.join(each.description for each in READERS.values())}.",
)
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@tenant_option
@click.option("--name", help="Call the article so, and not as its file.")
@json_option
@command
async def add(
    app: App, files: tuple[Path, ...], tenant: str, name: str | None, *, as_json: bool
) -> None:
    """Read files of articles."""
    views = []
    for file in files:
        async with app.database.reading() as session:
            await tenants.get(session, tenant)
        views.append(await _add(app, file, tenant, name or ""))
    if as_json:
        print_json(views)
    else:
        for view in views:
            _print_upload(view)
    failed = [view for view in views if view.state != "done"]
    if failed:
        message = "\n".join((view.error or {}).get("message", view.state) for view in failed)
        fail(message, code=EXIT_FAILED)


async def _add(app: App, file: Path, tenant: str, name: str) -> KnowledgeUploadView:
    blobs = BlobStore.open(app.settings.blobs)
    limit = service.max_bytes(app.settings)
    async with (
        stored(app.database, blobs, _read_chunks(file), max_bytes=limit) as (sha256, size),
        app.transaction() as session,
    ):
        owner = await tenants.get(session, tenant)
        await acquire_reference(session, blobs, sha256)
        row = await service.queue_upload(
            session,
            owner,
            sha256=sha256,
            size_bytes=size,
            filename=file.name,
            name=name,
            settings=app.settings,
        )
    async with asyncio.TaskGroup() as group:
        if not is_locked(app.settings.run / "worker.lock"):
            group.create_task(_run(app, row.id, blobs))
        return await _wait_for(app, owner, row.id)


async def _run(app: App, upload_id: str, blobs: BlobStore) -> None:
    """Do the work of an upload here, where no worker runs."""
    async with own_encoder(app) as embeddings:
        await importing.run_upload(
            app.database,
            upload_id,
            settings=app.settings,
            embeddings=embeddings,
            blobs=blobs,
        )


async def _wait_for(app: App, tenant: Tenant, upload_id: str) -> KnowledgeUploadView:
    with progress_bar(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("reading", total=None)
        while True:
            async with app.database.reading() as session:
                view = upload_view(await service.get_upload(session, tenant.id, upload_id))
            if view.chunks:
                bar.update(
                    task, description="embedding", total=view.chunks, completed=view.embedded
                )
            if view.state in service.ENDED:
                return view
            await asyncio.sleep(POLL_SECONDS)


async def _read_chunks(file: Path) -> AsyncGenerator[bytes]:
    with file.open("rb") as source:
        while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
            yield chunk


def _print_upload(view: KnowledgeUploadView) -> None:
    print_message(f"{view.filename}: {view.state}")
    if view.report is None:
        return
    report = msgspec.convert(view.report, KnowledgeReport, strict=False)
    print_message(
        f"  {report.articles:,} articles ({report.new:,} new, {report.replaced:,} replaced, "
        f"{report.unchanged:,} unchanged), {report.chunks:,} pieces, "
        f"{sum(report.redacted.values()):,} personal details redacted"
    )
    if report.skipped or report.skipped_parts:
        print_message(
            f"  left out: {report.skipped:,} articles, {report.skipped_parts:,} parts of kept ones"
        )
    if report.examples:
        rows = [(each.place, each.reason, each.detail) for each in report.examples]
        print_table("Left out", ("place", "reason", "detail"), rows)


@knowledge.command("list")
@tenant_option
@json_option
@command
async def list_articles(app: App, tenant: str, *, as_json: bool) -> None:
    """Articles, newest first."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        found: list[ArticleView] = []
        while batch := await service.list_articles(
            session, owner.id, limit=500, after=found[-1].id if found else None
        ):
            found += [article_view(each.article, each.current, each.coming) for each in batch]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each.id,
            each.name,
            version.version if version else None,
            "searched" if each.current else "being embedded",
            version.chunks if version else None,
            version.title if version else "",
        )
        for each in found
        for version in (each.current or each.coming,)
    ]
    print_table("Articles", ("id", "name", "version", "state", "pieces", "title"), rows)


@knowledge.command("show")
@click.argument("article")
@tenant_option
@click.option("--version", type=click.IntRange(1), help="The one that is searched when absent.")
@json_option
@command
async def show(app: App, article: str, tenant: str, version: int | None, *, as_json: bool) -> None:
    """An article, by its id or name: its versions, and the pieces of one."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        row = await _article(app, owner, article)
        versions = await service.list_versions(session, owner.id, row.id)
        shown = await service.get_version(session, owner.id, row.id, version)
        chunks = [
            chunk_view(each)
            for each in await service.list_chunks(
                session, owner.id, shown.id, limit=shown.chunks or 1
            )
        ]
    history = ArticleHistory(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        versions=[version_view(each) for each in versions],
    )
    if as_json:
        print_json({"article": history, "version": shown.number, "chunks": chunks})
        return
    print_table(
        f"{row.name}",
        ("version", "state", "title", "pieces", "hash", "since"),
        [
            (v.version, v.state, v.title, v.chunks, v.sha256[:12], f"{v.created_at:%Y-%m-%d %H:%M}")
            for v in history.versions
        ],
    )
    for chunk in chunks:
        heading = " > ".join(chunk.headings)
        print(escape_controls(f"\n[{chunk.ordinal}] {heading}\n{chunk.text}", lines=True))


@knowledge.command("remove")
@click.argument("article")
@tenant_option
@command
async def remove(app: App, article: str, tenant: str) -> None:
    """Delete an article, by its id or name, with its history."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
    row = await _article(app, owner, article)
    async with app.transaction() as session:
        await service.delete_article(session, owner.id, row.id)
    await app.database.scrub()
    print_message(f"deleted: {row.name}")


@knowledge.command("search")
@click.argument("question")
@tenant_option
@click.option("--count", type=click.IntRange(1, MAX_COUNT), default=5, show_default=True)
@json_option
@command
async def search(app: App, question: str, tenant: str, count: int, *, as_json: bool) -> None:
    """The pieces of articles that are nearest to a question."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
    knowledge_search = KnowledgeSearch(app.database)
    try:
        async with own_encoder(app) as embeddings:
            found = [
                found_view(each)
                for each in await find(
                    knowledge_search, embeddings, owner.id, question, count=count
                )
            ]
    finally:
        knowledge_search.close()
    if as_json:
        print_json(found)
        return
    for each in found:
        where = " > ".join([each.title, *each.headings])
        print(
            escape_controls(
                f"{each.score:.3f}  {where}  ({each.name}, version {each.version})\n{each.text}\n",
                lines=True,
            )
        )
    if not found:
        print_message("nothing is there to be found: see `tenantune knowledge add`")


async def _article(app: App, tenant: Tenant, article: str) -> Article:
    """An article by its id or name.

    Raises:
        NotFound: there is none.
    """
    async with app.database.reading() as session:
        named = await service.list_articles(session, tenant.id, limit=1, name=article)
        if named:
            return named[0].article
        try:
            return await service.get_article(session, tenant.id, article)
        except NotFound as exc:
            raise NotFound(
                f"There is no article '{article}': `tenantune knowledge list --tenant {tenant.slug}` has "
                "their names.",
                code="article_not_found",
            ) from exc

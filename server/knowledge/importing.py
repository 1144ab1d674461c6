"""Does the work of an upload of articles, in a worker: reads it, stores its pieces, and has them embedded.

Each part may run again after a crash at any point. An article's new version is searched from the moment
at which all of its pieces have a vector; until then the one before it is.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog
from sqlalchemy import bindparam, func, insert
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.knowledge.article import Skipped
from connectors.knowledge.chunking import embedded_text
from connectors.knowledge.ingestion import EXAMPLES_OF_A_REASON, KnowledgeReport, Prepared
from server.db.models import (
    Article,
    ArticleChunk,
    ArticleVersion,
    KnowledgeUpload,
    Tenant,
    new_id,
    now,
)
from server.db.scope import across_tenants, of_tenant
from server.db.session import Database
from server.embeddings.schemas import DIMENSIONS
from server.embeddings.service import EmbeddingService
from server.errors import Invalid, ServerError, Unavailable
from server.files.names import clean_name
from server.knowledge.reading import ReadingRequest, read
from server.knowledge.schemas import KnowledgeUsage
from server.knowledge.service import (
    ENDED,
    count_revision,
    lock_knowledge,
    remove_unfinished,
    usage,
)
from server.knowledge.vectors import pack
from server.scratch import scratch
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import try_delete_unreferenced
from server.tenants import service as tenants
from server.transcripts.redaction import redaction_rules

log = structlog.get_logger(__name__)

CHUNKS_AT_ONCE = 64
"""That are embedded between two looks at whether to go on; some seconds of one core."""
ROWS_AT_ONCE = 500
KEPT_VERSIONS = 20
"""Of an article in its history; older ones are removed when another is added."""
OVER_QUOTA = "quota"
_PATIENCE = 20  # times that a missing encoder is asked again
_PAUSE_SECONDS = 3.0
_SHORTER = 0.75  # of a text that the encoder finds too long
_UPLOADS = across_tenants("a worker knows an upload by its id alone")


class _Over(Exception):
    """The upload was cancelled, or is gone with its tenant."""


async def run_upload(
    database: Database,
    upload_id: str,
    *,
    settings: Settings,
    embeddings: EmbeddingService,
    blobs: BlobStore | None = None,
    pause_seconds: float = _PAUSE_SECONDS,
) -> None:
    """Read a queued upload, store what is new, and embed it; ``embeddings.run()`` must be running.

    An upload that has ended, or was deleted, is left as it is. What a person can mend ends it as
    failed, with the reason, and what of it is not searched yet is removed.
    """
    blobs = blobs or BlobStore.open(settings.blobs)
    async with database.transaction() as session:
        row = await _UPLOADS.get(session, KnowledgeUpload, upload_id, lock=True)
        if row is None or row.state in ENDED:
            return
        row.state = "running"
        row.started_at = row.started_at or now()
        tenant = await tenants.get_by_id(session, row.tenant_id)
    try:
        if row.report is None:
            await _read(database, row, tenant, settings=settings, blobs=blobs)
        await _embed(database, row, embeddings=embeddings, pause_seconds=pause_seconds)
    except _Over:
        log.info("reading articles stopped", id=upload_id)
        await try_delete_unreferenced(database, blobs, row.sha256)
    except ServerError as exc:
        await end_upload(database, blobs, upload_id, exc=exc)
    else:
        await end_upload(database, blobs, upload_id)


async def end_upload(
    database: Database, blobs: BlobStore, upload_id: str, *, exc: ServerError | None = None
) -> None:
    """Write how an upload ended, and release its file."""
    async with database.transaction() as session:
        row = await _UPLOADS.get(session, KnowledgeUpload, upload_id, lock=True)
        if row is None or row.state in ENDED:
            return
        row.state = "done" if exc is None else "failed"
        row.error = None if exc is None else {"code": exc.code, "message": str(exc)}
        row.finished_at = row.removed_at = now()
        await session.flush()
        if exc is not None:
            await remove_unfinished(session, row.tenant_id, row.id)
    if exc is not None:
        log.warning("reading articles failed", id=upload_id, code=exc.code, reason=str(exc))
    else:
        log.info("articles read", id=upload_id, chunks=row.chunks)
    await try_delete_unreferenced(database, blobs, row.sha256)


async def _read(
    database: Database,
    upload: KnowledgeUpload,
    tenant: Tenant,
    *,
    settings: Settings,
    blobs: BlobStore,
) -> None:
    """Parse, redact and cut the file, and store what is new.

    Raises:
        Invalid: nothing of it can be used.
    """
    with scratch(settings, "knowledge") as folder:
        spool = folder / "articles.jsonl"
        async with blobs.local(upload.sha256, within=folder) as path:
            report = await read(
                ReadingRequest(
                    source=str(path),
                    spool=str(spool),
                    filename=clean_name(upload.filename),
                    name=upload.name,
                    redaction=redaction_rules(tenant, settings),
                )
            )
        for article in _articles(spool):
            await _store(database, upload, article, report, settings=settings)
    async with database.transaction() as session:
        row = await _going_on(session, upload.id)
        row.report = msgspec.to_builtins(report)
        mine = of_tenant(upload.tenant_id)
        query = mine.select(func.sum(ArticleVersion.chunks))
        query = query.where(
            ArticleVersion.upload_id == upload.id, ArticleVersion.state == "embedding"
        )
        row.chunks = await session.scalar(query) or 0
    if not (report.new or report.replaced or report.unchanged):
        raise _nothing_usable(report)


async def _store(
    database: Database,
    upload: KnowledgeUpload,
    article: Prepared,
    report: KnowledgeReport,
    *,
    settings: Settings,
) -> None:
    """Store a new version of an article, unless it says the same as the one that is there."""
    tenant_id = upload.tenant_id
    mine = of_tenant(tenant_id)
    text_bytes = sum(len(chunk.text.encode()) for chunk in article.chunks)
    async with database.transaction() as session:
        await _going_on(session, upload.id)
        await lock_knowledge(session, tenant_id)
        row = await session.scalar(mine.select(Article).where(Article.name == article.name))
        versions: list[ArticleVersion] = []
        if row is not None:
            query = mine.select(ArticleVersion).where(ArticleVersion.article_id == row.id)
            versions = list(await session.scalars(query.order_by(ArticleVersion.number.desc())))
        for version in versions:
            if version.upload_id == upload.id:  # a worker that was killed has stored it
                report.new += len(versions) == 1
                report.replaced += len(versions) > 1
                return
        newest = versions[0] if versions else None
        if newest is not None and newest.state != "replaced" and newest.sha256 == article.sha256:
            report.unchanged += 1
            return
        going = [each for each in versions if each.state in {"current", "embedding"}]
        used = await usage(session, tenant_id, settings)
        problem = _over_quota(used, going, article, text_bytes)
        if problem:
            _skip(report, Skipped(article.name, OVER_QUOTA, problem))
            return
        for version in versions:
            if version.state == "embedding":  # a later upload has come before it was done
                await _remove_version(session, version)
        if row is None:
            row = Article(tenant_id=tenant_id, name=article.name)
            session.add(row)
            await session.flush()
        made = ArticleVersion(
            tenant_id=tenant_id,
            article_id=row.id,
            upload_id=upload.id,
            number=newest.number + 1 if newest else 1,
            state="embedding",
            title=article.title,
            format=article.format,
            sha256=article.sha256,
            source_sha256=upload.sha256,
            sections=article.sections,
            chunks=len(article.chunks),
            characters=article.characters,
            text_bytes=text_bytes,
        )
        session.add(made)
        await session.flush()
        await _insert(session, made, article)
        report.new += newest is None
        report.replaced += newest is not None


def _over_quota(
    used: KnowledgeUsage, going: list[ArticleVersion], article: Prepared, text_bytes: int
) -> str:
    """Why an article has no room; empty where it has. ``going``: the versions that make way for it."""
    chunks = used.chunks - sum(each.chunks for each in going) + len(article.chunks)
    if chunks > used.max_chunks:
        return (
            f"its {len(article.chunks):,} pieces would make {chunks:,}, and {used.max_chunks:,} are the most; "
            "delete an article, or ask the operator"
        )
    size = used.text_bytes + text_bytes
    if size > used.max_text_bytes:
        return (
            f"its text would make {size:,} bytes, old versions included, and {used.max_text_bytes:,} are the "
            "most; delete an article, or ask the operator"
        )
    return ""


async def _insert(session: AsyncSession, version: ArticleVersion, article: Prepared) -> None:
    values = [
        {
            "id": new_id(),
            "tenant_id": version.tenant_id,
            "version_id": version.id,
            "ordinal": chunk.ordinal,
            "headings": list(chunk.headings),
            "text": chunk.text,
        }
        for chunk in article.chunks
    ]
    for at in range(0, len(values), ROWS_AT_ONCE):
        await session.execute(insert(ArticleChunk), values[at : at + ROWS_AT_ONCE])


async def _remove_version(session: AsyncSession, version: ArticleVersion) -> None:
    mine = of_tenant(version.tenant_id)
    for statement in (
        mine.delete(ArticleChunk).where(ArticleChunk.version_id == version.id),
        mine.delete(ArticleVersion).where(ArticleVersion.id == version.id),
    ):
        await session.execute(statement.execution_options(synchronize_session=False))


async def _embed(
    database: Database,
    upload: KnowledgeUpload,
    *,
    embeddings: EmbeddingService,
    pause_seconds: float,
) -> None:
    """Embed what has no vector yet, version by version, and put each that has all into the search.

    Raises:
        Unavailable: the encoder does not come.
    """
    mine = of_tenant(upload.tenant_id)
    while True:
        async with database.reading() as session:
            query = mine.select(ArticleVersion).where(
                ArticleVersion.upload_id == upload.id, ArticleVersion.state == "embedding"
            )
            version = await session.scalar(query.order_by(ArticleVersion.id).limit(1))
        if version is None:
            return
        while True:
            async with database.reading() as session:
                query_ = mine.select(ArticleChunk).where(
                    ArticleChunk.version_id == version.id, ArticleChunk.vector.is_(None)
                )
                rows = list(
                    await session.scalars(
                        query_.order_by(ArticleChunk.ordinal).limit(CHUNKS_AT_ONCE)
                    )
                )
            if not rows:
                break
            texts = [embedded_text(version.title, row.headings, row.text) for row in rows]
            vectors, shortened = await _vectors(
                embeddings, texts, tenant=upload.tenant_id, pause_seconds=pause_seconds
            )
            await _keep_vectors(database, upload.id, rows, vectors, shortened)
        await _make_current(database, upload, version)


async def _vectors(
    embeddings: EmbeddingService, texts: list[str], *, tenant: str, pause_seconds: float
) -> tuple[list[bytes], int]:
    """Vectors of texts, in float16, and how many texts had to be shortened for the encoder."""
    try:
        return [pack(each) for each in await _ask(embeddings, texts, tenant, pause_seconds)], 0
    except Invalid:  # one of them is too long: find out which
        found = []
        shortened = 0
        for text in texts:
            cut, vector = text, b""
            while not vector:
                try:
                    [vector] = await _ask(embeddings, [cut], tenant, pause_seconds)
                except Invalid:
                    if len(cut) < 2:  # noqa: PLR2004 - the encoder refuses a single character
                        raise
                    cut = cut[: max(1, int(len(cut) * _SHORTER))]
            shortened += cut is not text
            found.append(pack(vector))
        return found, shortened


async def _ask(
    embeddings: EmbeddingService, texts: list[str], tenant: str, pause_seconds: float
) -> list[bytes]:
    for left in range(_PATIENCE - 1, -1, -1):
        try:
            answer = await embeddings.embed(texts, tenant=tenant, dimensions=DIMENSIONS)
        except Unavailable as exc:
            if not left:
                raise Unavailable(
                    "The embedding model does not start, so nothing can be made searchable. Upload it "
                    "again when it does.",
                    code="encoder_unavailable",
                ) from exc
            await asyncio.sleep(pause_seconds)
        else:
            return answer.vectors
    raise AssertionError("the loop returns or raises")


async def _keep_vectors(
    database: Database,
    upload_id: str,
    rows: list[ArticleChunk],
    vectors: list[bytes],
    shortened: int,
) -> None:
    tenant_id = rows[0].tenant_id
    change = (
        of_tenant(tenant_id)
        .update(ArticleChunk)
        .where(ArticleChunk.id == bindparam("chunk_id"))
        .values(vector=bindparam("made"))
    )
    values = [
        {"chunk_id": row.id, "made": vector} for row, vector in zip(rows, vectors, strict=True)
    ]
    async with database.transaction() as session:
        upload = await _going_on(session, upload_id)
        connection = await session.connection()
        await connection.execute(change, values)
        upload.embedded += len(rows)
        if shortened and upload.report is not None:
            count = upload.report.get("shortened", 0) + shortened
            upload.report = {**upload.report, "shortened": count}


async def _make_current(
    database: Database, upload: KnowledgeUpload, version: ArticleVersion
) -> None:
    """Put a version whose pieces all have vectors into the search, in the place of the one before."""
    mine = of_tenant(upload.tenant_id)
    async with database.transaction() as session:
        await _going_on(session, upload.id)
        await lock_knowledge(session, upload.tenant_id)
        row = await mine.get(session, ArticleVersion, version.id, lock=True)
        if row is None or row.state != "embedding":  # deleted meanwhile
            return
        before = mine.select(ArticleVersion).where(ArticleVersion.article_id == row.article_id)
        versions = list(await session.scalars(before.order_by(ArticleVersion.number.desc())))
        for each in versions:
            if each.state == "current":
                each.state = "replaced"
                each.replaced_at = now()
                forget = mine.update(ArticleChunk).where(ArticleChunk.version_id == each.id)
                await session.execute(
                    forget.values(vector=None).execution_options(synchronize_session=False)
                )
        row.state = "current"
        await session.flush()
        for each in versions[KEPT_VERSIONS + 1 :]:
            await _remove_version(session, each)
        await count_revision(session, upload.tenant_id)


async def _going_on(session: AsyncSession, upload_id: str) -> KnowledgeUpload:
    """The upload, locked, where it is still to be worked on.

    Raises:
        _Over: it is not.
    """
    row = await _UPLOADS.get(session, KnowledgeUpload, upload_id, lock=True)
    if row is None or row.state in ENDED:
        raise _Over
    return row


def _articles(spool: Path) -> Iterator[Prepared]:
    decoder = msgspec.json.Decoder(Prepared)
    with spool.open("rb") as lines:
        for line in lines:
            yield decoder.decode(line)


def _skip(report: KnowledgeReport, item: Skipped) -> None:
    """Count an article that was read and is not kept."""
    report.articles -= 1
    report.skipped += 1
    report.reasons = {**report.reasons, item.reason: report.reasons.get(item.reason, 0) + 1}
    if sum(each.reason == item.reason for each in report.examples) < EXAMPLES_OF_A_REASON:
        report.examples = [*report.examples, item]


def _nothing_usable(report: KnowledgeReport) -> Invalid:
    """Why nothing of a file could be used."""
    first = report.examples[0] if report.examples else None
    whole = next((each for each in report.examples if not each.part), first)
    why = f": {whole.detail}" if whole else ""
    code = str(whole.reason) if whole else "nothing_usable"
    where = f" ({whole.place})" if whole and whole.place not in {"", report.filename} else ""
    return Invalid(f"Nothing of '{report.filename}' could be used{why}{where}.", code=code)

"""From an upload to conversations to a dataset version.

``queue_import`` (web, in the request's transaction) makes work; ``run_import`` (worker) does the
slow part outside any transaction and stores what came of it. ``freezing.py`` makes datasets.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.importers import IMPORTERS, ImportOptions
from connectors.report import ImportReport
from server.db.models import (
    ConversationRow,
    DatasetVersion,
    Import,
    ImportedAgain,
    SourceFile,
    Tenant,
    new_id,
    now,
)
from server.db.session import Database
from server.errors import Invalid, NotFound, ServerError
from server.files import originals
from server.files.names import clean_name
from server.scratch import scratch
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import try_delete_unreferenced
from server.tenants import service as tenants
from server.transcripts.reading import Kept, ReadingRequest, read

log = structlog.get_logger(__name__)

ROWS_AT_ONCE = 500


async def queue_import(
    session: AsyncSession,
    tenant: Tenant,
    *,
    sha256: str,
    size_bytes: int,
    filename: str,
    importer: str | None = None,
    options: ImportOptions | None = None,
) -> tuple[Import, SourceFile]:
    """Note an upload whose bytes are stored, and queue the reading of it.

    The same bytes with the same importer and options are the same import, which is returned as it
    is, unless it failed.

    Raises:
        Invalid: there is no importer of that name.
    """
    if importer is not None and importer not in IMPORTERS:
        known = ", ".join(IMPORTERS)
        raise Invalid(f"There is no importer '{importer}'; there are: {known}.", param="importer")
    # one upload of a tenant after the other, so that equal ones find each other
    await session.refresh(tenant, with_for_update=True)
    source = await originals.lock(
        session, SourceFile.tenant_id == tenant.id, SourceFile.sha256 == sha256
    )
    if source is None:
        source = SourceFile(
            tenant_id=tenant.id,
            filename=clean_name(filename),
            sha256=sha256,
            size_bytes=size_bytes,
        )
        session.add(source)
        await session.flush()
    said: dict[str, Any] = msgspec.to_builtins(options or ImportOptions())
    for row in await session.scalars(
        select(Import).where(Import.source_file_id == source.id, Import.state != "failed")
    ):
        if importer in {None, row.importer} and row.options == said:
            return row, source
    source.removed_at = None
    row = Import(tenant_id=tenant.id, source_file_id=source.id, importer=importer, options=said)
    session.add(row)
    await session.flush()
    return row, source


async def run_import(
    database: Database, import_id: str, *, settings: Settings, blobs: BlobStore | None = None
) -> None:
    """Read a queued upload: parse, redact, and store what is new, with the report; then it goes.

    May be run again after a crash at any point; an import that ended is left as it is, and one that
    was deleted is no more. What a person can mend (an unknown format, a wrong column, a file of
    which nothing could be used) ends it as failed, with the reason; nothing is kept of it.
    """
    blobs = blobs or BlobStore.open(settings.blobs)
    async with database.transaction() as session:
        row = await session.get(Import, import_id, with_for_update=True)
        if row is None or row.state in {"done", "failed"}:
            return
        row.state = "running"
        row.started_at = now()
        source = await session.get_one(SourceFile, row.source_file_id)
        tenant = await tenants.get_by_id(session, row.tenant_id)
    with scratch(settings, "import") as folder:
        spool = folder / "conversations.jsonl"
        try:
            async with blobs.local(source.sha256, within=folder) as path:
                report = await read(
                    ReadingRequest(
                        source=str(path),
                        spool=str(spool),
                        filename=clean_name(source.filename),
                        importer=row.importer,
                        options=msgspec.convert(row.options, ImportOptions),
                        custom_patterns=tenant.custom_patterns,
                        region=settings.default_region,
                        allowlist=tenant.allowlist,
                    )
                )
        except ServerError as exc:
            await end_import(database, blobs, import_id, exc=exc)
            return
        if not report.read:
            await end_import(database, blobs, import_id, exc=_nothing(report), report=report)
            return
        report.stored, report.known = await _store(database, import_id, spool)
        await end_import(database, blobs, import_id, report=report)


async def list_imports(
    session: AsyncSession, tenant: Tenant, *, limit: int = 100
) -> list[tuple[Import, SourceFile]]:
    """A tenant's imports, newest first."""
    query = (
        select(Import, SourceFile)
        .join(SourceFile, Import.source_file_id == SourceFile.id)
        .where(Import.tenant_id == tenant.id)
        .order_by(Import.id.desc())
        .limit(limit)
    )
    return [(row, source) for row, source in await session.execute(query)]


async def get_import(
    session: AsyncSession, tenant: Tenant, import_id: str
) -> tuple[Import, SourceFile]:
    """One import of this tenant.

    Raises:
        NotFound: no such import.
    """
    query = (
        select(Import, SourceFile)
        .join(SourceFile, Import.source_file_id == SourceFile.id)
        .where(Import.tenant_id == tenant.id, Import.id == import_id)
    )
    found = (await session.execute(query)).one_or_none()
    if found is None:
        raise NotFound(f"There is no import '{import_id}'.", code="import_not_found")
    row, source = found
    return row, source


async def list_datasets(session: AsyncSession, tenant: Tenant) -> list[DatasetVersion]:
    """A tenant's dataset versions, newest first."""
    query = select(DatasetVersion).where(DatasetVersion.tenant_id == tenant.id)
    return list(await session.scalars(query.order_by(DatasetVersion.id.desc())))


async def get_dataset(session: AsyncSession, tenant: Tenant, sha256: str) -> DatasetVersion:
    """One dataset version of this tenant.

    Raises:
        NotFound: no such version.
    """
    row = await session.scalar(
        select(DatasetVersion).where(
            DatasetVersion.tenant_id == tenant.id, DatasetVersion.sha256 == sha256
        )
    )
    if row is None:
        raise NotFound(f"There is no dataset '{sha256}'.", code="dataset_not_found")
    return row


async def _store(database: Database, import_id: str, spool: Path) -> tuple[int, int]:
    """Insert the conversations that the tenant has not got; returns (stored, known).

    In many short transactions: on SQLite others write in between, whatever the size of the import.
    """
    stored = known = 0
    for group in _in_groups(spool):
        async with database.transaction() as session:
            row = await session.get(Import, import_id)
            if row is None or not await tenants.hold_transcripts(session, row.tenant_id):
                break  # its tenant was deleted
            fresh = {kept.digest: kept for kept in group}
            query = select(ConversationRow.digest, ConversationRow.id, ConversationRow.import_id)
            found = await session.execute(
                query.where(
                    ConversationRow.tenant_id == row.tenant_id,
                    ConversationRow.digest.in_(list(fresh)),
                )
            )
            others = []
            for digest, conversation_id, first in found:
                del fresh[digest]
                if first != row.id:  # else a worker that was killed has stored it
                    others.append(conversation_id)
            await _insert(session, row, list(fresh.values()))
            await _note_again(session, row, others)
        known += len(others)
        stored += len(group) - len(others)
    return stored, known


async def _insert(session: AsyncSession, row: Import, fresh: list[Kept]) -> None:
    values = [
        {
            "id": new_id(),
            "tenant_id": row.tenant_id,
            "import_id": row.id,
            "external_id": kept.conversation.id,
            "digest": kept.digest,
            "split": kept.conversation.split,
            "body": msgspec.to_builtins(kept.conversation),
        }
        for kept in fresh
    ]
    if values:
        await session.execute(insert(ConversationRow), values)


async def _note_again(session: AsyncSession, row: Import, conversation_ids: list[str]) -> None:
    """Note that these conversations of earlier imports belong to this one too."""
    noted = await session.scalars(
        select(ImportedAgain.conversation_id).where(
            ImportedAgain.import_id == row.id, ImportedAgain.conversation_id.in_(conversation_ids)
        )
    )
    fresh = set(conversation_ids).difference(noted)
    values = [
        {
            "id": new_id(),
            "tenant_id": row.tenant_id,
            "import_id": row.id,
            "conversation_id": conversation_id,
        }
        for conversation_id in fresh
    ]
    if values:
        await session.execute(insert(ImportedAgain), values)


def _in_groups(spool: Path) -> Iterator[list[Kept]]:
    decoder = msgspec.json.Decoder(Kept)
    group: list[Kept] = []
    with spool.open("rb") as lines:
        for line in lines:
            group.append(decoder.decode(line))
            if len(group) == ROWS_AT_ONCE:
                yield group
                group = []
    if group:
        yield group


def _nothing(report: ImportReport) -> Invalid:
    """Why a file was read to its end in vain."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.reasons.items())
    why = f"left out: {reasons}" if reasons else "it holds no conversation"
    if report.examples:
        first = report.examples[0]
        why += f"; the first is line {first.line}: {first.detail}"
    return Invalid(
        f"Nothing in '{report.filename}', read as {report.importer}, could be used ({why}).",
        code="nothing_usable",
    )


async def end_import(
    database: Database,
    blobs: BlobStore,
    import_id: str,
    *,
    report: ImportReport | None = None,
    exc: ServerError | None = None,
) -> None:
    """Write how an import ended, and let go of the upload with it."""
    async with database.transaction() as session:
        row = await session.get(Import, import_id)
        if row is None:  # deleted with its tenant
            return
        row.state = "done" if exc is None else "failed"
        row.error = None if exc is None else {"code": exc.code, "message": str(exc)}
        if report is not None:
            row.report = msgspec.to_builtins(report)
            if exc is None:
                row.importer = row.importer or report.importer
        row.finished_at = now()
        await session.flush()
        sha256 = await originals.let_go(session, row.source_file_id)
    if exc is not None:
        log.warning("import failed", id=import_id, code=exc.code, reason=str(exc))
    elif report is not None:
        log.info("import done", id=import_id, stored=report.stored, rejected=report.rejected)
    if sha256 is not None:
        await try_delete_unreferenced(database, blobs, sha256)

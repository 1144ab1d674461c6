"""From an upload to conversations to a dataset version.

``queue_import`` (web, in the request's transaction) makes work; ``run_import`` (worker) does the
slow part outside any transaction and stores what came of it in one. ``freezing.py`` makes datasets.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.errors import ConnectorError
from connectors.importers import IMPORTERS, ImportOptions
from connectors.report import ImportReport
from server.blobs import BlobStore
from server.db.models import (
    ConversationRow,
    DatasetVersion,
    Import,
    SourceFile,
    Tenant,
    new_id,
    now,
)
from server.db.session import Database
from server.errors import Invalid, NotFound, ServerError
from server.files.names import clean_name
from server.settings import Settings
from server.tenants import service as tenants
from server.transcripts.reading import Kept, read_source, redactor_of

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
    source = await session.scalar(
        select(SourceFile).where(SourceFile.tenant_id == tenant.id, SourceFile.sha256 == sha256)
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
    row = Import(tenant_id=tenant.id, source_file_id=source.id, importer=importer, options=said)
    session.add(row)
    await session.flush()
    return row, source


async def run_import(
    database: Database, import_id: str, *, settings: Settings, blobs: BlobStore | None = None
) -> None:
    """Read a queued upload: parse, redact, and store what is new, with the report.

    May be run again after a crash at any point; an import that ended is left as it is. What a
    person can mend (an unknown format, a wrong column, a file of which nothing could be used) ends
    it as failed, with the reason; nothing is kept of it.
    """
    blobs = blobs or BlobStore.open(settings.blobs)
    async with database.transaction() as session:
        row = await session.get_one(Import, import_id)
        if row.state in {"done", "failed"}:
            return
        row.state = "running"
        source = await session.get_one(SourceFile, row.source_file_id)
        tenant = await tenants.get_by_id(session, row.tenant_id)
    with tempfile.TemporaryDirectory(prefix="tenantune-import-") as folder:
        spool = Path(folder) / "conversations.jsonl"
        try:
            async with blobs.local(source.sha256) as path:
                report = await asyncio.to_thread(
                    read_source,
                    path,
                    spool,
                    filename=clean_name(source.filename),
                    importer=row.importer,
                    options=msgspec.convert(row.options, ImportOptions),
                    redactor=redactor_of(tenant, settings),
                )
        except (ConnectorError, ServerError) as exc:
            await _fail(database, import_id, exc)
            return
        if not report.read:
            await _fail(database, import_id, _nothing(report), report=report)
            return
        async with database.transaction() as session:
            row = await session.get_one(Import, import_id)
            report.stored, report.known = await _store(session, row, spool)
            row.report = msgspec.to_builtins(report)
            row.importer = row.importer or report.importer
            row.state = "done"
            row.finished_at = now()
    log.info("import done", id=import_id, stored=report.stored, rejected=report.rejected)


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


async def _store(session: AsyncSession, row: Import, spool: Path) -> tuple[int, int]:
    """Insert the conversations that the tenant has not got; returns (stored, known)."""
    stored = known = 0
    for group in _in_groups(spool):
        fresh = {kept.digest: kept for kept in group}
        found = await session.scalars(
            select(ConversationRow.digest).where(
                ConversationRow.tenant_id == row.tenant_id,
                ConversationRow.digest.in_(list(fresh)),
            )
        )
        for digest in found:
            del fresh[digest]
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
            for kept in fresh.values()
        ]
        if values:
            await session.execute(insert(ConversationRow), values)
        stored += len(values)
        known += len(group) - len(values)
    return stored, known


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


async def _fail(
    database: Database,
    import_id: str,
    exc: ConnectorError | ServerError,
    *,
    report: ImportReport | None = None,
) -> None:
    code = exc.code if isinstance(exc, ServerError) else type(exc).__name__
    async with database.transaction() as session:
        row = await session.get_one(Import, import_id)
        row.state = "failed"
        row.error = {"code": code, "message": str(exc)}
        row.report = None if report is None else msgspec.to_builtins(report)
        row.finished_at = now()
    log.warning("import failed", id=import_id, code=code, reason=str(exc))

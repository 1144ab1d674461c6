"""Does the work of an import, in a worker: reads an upload and stores its conversations.

The slow part, in ``reading``, is a process of its own and outside any transaction.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.importers import ImportOptions
from connectors.report import ImportReport
from server.db.models import ConversationRow, Import, ImportedAgain, SourceFile, new_id, now
from server.db.scope import across_tenants, of_tenant
from server.db.session import Database
from server.errors import Invalid, ServerError
from server.files import originals
from server.files.names import clean_name
from server.scratch import scratch
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import try_delete_unreferenced
from server.tenants import service as tenants
from server.transcripts.reading import Kept, ReadingRequest, read
from server.transcripts.redaction import redaction_rules

log = structlog.get_logger(__name__)

ROWS_AT_ONCE = 500
_IMPORTS = across_tenants("a worker knows an import by its id alone")


async def run_import(
    database: Database, import_id: str, *, settings: Settings, blobs: BlobStore | None = None
) -> None:
    """Read a queued upload: parse, redact, store what is new and the report, release the file.

    May run again after a crash at any point. An import that has ended, or was deleted, is left as it
    is. What a person can mend (an unknown format, a wrong column, a file with nothing to use) ends
    it as failed, with the reason, and nothing is stored.
    """
    blobs = blobs or BlobStore.open(settings.blobs)
    async with database.transaction() as session:
        row = await _IMPORTS.get(session, Import, import_id, lock=True)
        if row is None or row.state in {"done", "failed"}:
            return
        row.state = "running"
        row.started_at = now()
        source = await of_tenant(row.tenant_id).get_one(session, SourceFile, row.source_file_id)
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
                        redaction=redaction_rules(tenant, settings),
                    )
                )
        except ServerError as exc:
            await end_import(database, blobs, import_id, exc=exc)
            return
        if not report.read:
            await end_import(database, blobs, import_id, exc=_nothing_usable(report), report=report)
            return
        report.stored, report.known = await _store(database, import_id, spool)
        await end_import(database, blobs, import_id, report=report)


async def end_import(
    database: Database,
    blobs: BlobStore,
    import_id: str,
    *,
    report: ImportReport | None = None,
    exc: ServerError | None = None,
) -> None:
    """Write how an import ended, and release its file."""
    async with database.transaction() as session:
        row = await _IMPORTS.get(session, Import, import_id)
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


async def _store(database: Database, import_id: str, spool: Path) -> tuple[int, int]:
    """Insert the conversations that the tenant does not have yet; returns (stored, known).

    In many short transactions, so that on SQLite others write in between.
    """
    stored = known = 0
    for group in _in_groups(spool):
        async with database.transaction() as session:
            row = await _IMPORTS.get(session, Import, import_id)
            if row is None or not await tenants.lock_transcripts(session, row.tenant_id):
                break  # its tenant was deleted
            fresh = {kept.digest: kept for kept in group}
            query = of_tenant(row.tenant_id).select(
                ConversationRow.digest, ConversationRow.id, ConversationRow.import_id
            )
            found = await session.execute(query.where(ConversationRow.digest.in_(list(fresh))))
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
        of_tenant(row.tenant_id)
        .select(ImportedAgain.conversation_id)
        .where(
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


def _nothing_usable(report: ImportReport) -> Invalid:
    """Why nothing in a file could be used."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.reasons.items())
    why = f"rejected: {reasons}" if reasons else "it holds no conversation"
    if report.examples:
        first = report.examples[0]
        why += f"; the first is line {first.line}: {first.detail}"
    return Invalid(
        f"Nothing in '{report.filename}', read as {report.importer}, could be used ({why}).",
        code="nothing_usable",
    )

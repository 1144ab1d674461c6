"""Deletes an import, with its conversations but those that another import has too.

What was made from them stays, and is named. A dataset version is the immutable record of what an
adapter was trained on: it is removed with the import only on request. Adapters are deleted as models.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import and_, func, or_
from sqlalchemy.ext.asyncio import AsyncSession

from server.audit import service as audit
from server.audit.schemas import Subject
from server.db.models import (
    FINISHED_JOB_STATES,
    Adapter,
    ConversationRow,
    DatasetVersion,
    Import,
    ImportedAgain,
    Job,
    SourceFile,
    Tenant,
)
from server.db.scope import across_tenants, of_tenant
from server.db.session import Database
from server.errors import Conflict, NotFound
from server.files import originals
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.datasets import remove_datasets
from server.storage.references import try_delete_unreferenced
from server.tenants import service as tenants
from server.transcripts.schemas import ImportDeletion
from server.transcripts.service import subject

# of a job whose training is over: a person's decision changes nothing about that
_TRAINED = (*FINISHED_JOB_STATES, "awaiting_approval")


class Leftovers(msgspec.Struct, frozen=True):
    """What is left outside the database, for the caller to remove after commit (``remove``)."""

    blobs: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


async def delete_import(
    session: AsyncSession, slug: str, import_id: str, *, datasets: bool = False
) -> tuple[ImportDeletion, Leftovers]:
    """Delete an import and its conversations; with ``datasets`` their dataset versions as well.

    Raises:
        NotFound: there is no such tenant, or it has no such import.
        Conflict: it is being read, or a job is learning from it.
    """
    tenant = await tenants.get(session, slug)
    await tenants.lock_transcripts(session, tenant.id)
    mine = of_tenant(tenant.id)
    row = await mine.get(session, Import, import_id, lock=True)
    if row is None:
        raise NotFound(f"There is no import '{import_id}'.", code="import_not_found")
    if row.state == "running":
        raise Conflict(
            f"Import '{import_id}' is being read: delete it when that has ended.",
            code="import_running",
        )
    holding = await _datasets_of(session, row)
    await _require_no_learner(session, tenant, holding)
    adapters = await _trained_on(session, tenant, holding)
    deleted, kept = await _delete_conversations(session, row)
    source = await originals.lock(session, SourceFile.id == row.source_file_id, scope=mine)
    await session.execute(mine.delete(Import).where(Import.id == row.id))
    blobs: tuple[str, ...] = ()
    same_file = mine.select(Import.id).where(Import.source_file_id == row.source_file_id).limit(1)
    if source is not None and await session.scalar(same_file) is None:
        blobs = (source.sha256,)
        await session.execute(mine.delete(SourceFile).where(SourceFile.id == source.id))
    gone = await _delete_datasets(session, tenant, holding) if datasets else ()
    audit.record(
        session,
        "transcripts.deleted",
        tenant_id=tenant.id,
        subject=subject(row, source),
        details={"conversations_deleted": deleted, "conversations_kept": kept},
    )
    return (
        ImportDeletion(
            id=import_id,
            conversations_deleted=deleted,
            conversations_kept=kept,
            datasets=[dataset.sha256 for dataset in holding],
            datasets_deleted=datasets,
            adapters=[f"{slug}@{adapter.version}" for adapter in adapters],
        ),
        Leftovers(blobs, gone),
    )


async def made_from(
    session: AsyncSession, tenant: Tenant, row: Import
) -> tuple[list[DatasetVersion], list[Adapter]]:
    """The dataset versions that hold conversations of an import, and the adapters trained on them."""
    holding = await _datasets_of(session, row)
    return holding, await _trained_on(session, tenant, holding)


async def remove(
    leftovers: Leftovers, *, database: Database, blobs: BlobStore, settings: Settings
) -> None:
    """Remove what a deletion left outside the database, once it is committed."""
    await database.scrub()
    await try_delete_unreferenced(database, blobs, *leftovers.blobs)
    await remove_datasets(leftovers.datasets, settings=settings)


async def _datasets_of(session: AsyncSession, row: Import) -> list[DatasetVersion]:
    """The dataset versions that hold conversations of an import, oldest first.

    A version whose imports were not recorded (by an older server) counts if it is younger.
    """
    query = of_tenant(row.tenant_id).select(DatasetVersion).order_by(DatasetVersion.id)
    return [
        dataset
        for dataset in await session.scalars(query)
        if (
            row.id in dataset.import_ids
            if dataset.import_ids is not None
            else dataset.created_at >= row.created_at
        )
    ]


async def _require_no_learner(
    session: AsyncSession, tenant: Tenant, holding: Sequence[DatasetVersion]
) -> None:
    """Refuse while a job learns from the import, or reads what it is to learn from.

    A queued job has read nothing yet. One that begins to read waits for ``tenants.lock_transcripts``.

    Raises:
        Conflict: there is such a job.
    """
    reading = and_(Job.dataset_id.is_(None), Job.state != "queued", Job.training_file_id.is_(None))
    learner = await session.scalar(
        of_tenant(tenant.id)
        .select(Job.id)
        .where(Job.state.not_in(_TRAINED))
        .where(or_(Job.dataset_id.in_([each.id for each in holding]), reading))
        .limit(1)
    )
    if learner is not None:
        raise Conflict(
            f"Job {learner} is learning from it: wait for its end, or cancel it.",
            code="job_in_progress",
        )


async def _trained_on(
    session: AsyncSession, tenant: Tenant, holding: Sequence[DatasetVersion]
) -> list[Adapter]:
    """Adapters that were trained on these datasets, or began with the weights of one that was."""
    mine = of_tenant(tenant.id)
    query = mine.select(Adapter).where(Adapter.state != "deleted")
    adapters = list(await session.scalars(query.order_by(Adapter.version)))
    starting = mine.select(Job.id, Job.start_adapter_id).where(Job.start_adapter_id.is_not(None))
    starts = {row.id: row.start_adapter_id for row in await session.execute(starting)}
    datasets = {dataset.id for dataset in holding}
    found = {adapter.id for adapter in adapters if adapter.dataset_id in datasets}
    while True:
        more = {a.id for a in adapters if starts.get(a.job_id or "") in found} - found
        if not more:
            return [adapter for adapter in adapters if adapter.id in found]
        found |= more


async def _delete_conversations(session: AsyncSession, row: Import) -> tuple[int, int]:
    """(how many were deleted, how many stay because another import has them too)."""
    mine = of_tenant(row.tenant_id)
    owned_by_others = mine.select(func.count(ImportedAgain.id)).where(
        ImportedAgain.import_id == row.id
    )
    kept = await session.scalar(owned_by_others) or 0
    # filtered by tenant, SQLite would look through all of the tenant's for each conversation
    others = across_tenants("the conversation is the tenant's").select(ImportedAgain.import_id)
    others = others.where(ImportedAgain.conversation_id == ConversationRow.id)
    next_owner = others.with_only_columns(func.min(ImportedAgain.import_id)).scalar_subquery()
    moved = await session.scalars(
        mine.update(ConversationRow)
        .where(ConversationRow.import_id == row.id, others.exists())
        .values(import_id=next_owner)
        .returning(ConversationRow.id)
        .execution_options(synchronize_session=False)
    )
    moved_count = len(list(moved))
    same = across_tenants("the row that is deleted is the tenant's").select(ConversationRow.id)
    same = same.where(
        ConversationRow.id == ImportedAgain.conversation_id,
        ConversationRow.import_id == ImportedAgain.import_id,
    )
    await session.execute(
        mine.delete(ImportedAgain).where(same.exists()).execution_options(synchronize_session=False)
    )
    gone = await session.scalars(
        mine.delete(ConversationRow)
        .where(ConversationRow.import_id == row.id)
        .returning(ConversationRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(list(gone)), moved_count + kept


async def _delete_datasets(
    session: AsyncSession, tenant: Tenant, holding: Sequence[DatasetVersion]
) -> tuple[str, ...]:
    """Delete the rows; returns the hashes of those whose folder no other tenant's row refers to."""
    ids = [dataset.id for dataset in holding]
    hashes = {dataset.sha256 for dataset in holding}
    rows = of_tenant(tenant.id).delete(DatasetVersion)
    await session.execute(rows.where(DatasetVersion.id.in_(ids)))
    for dataset in holding:
        audit.record(
            session,
            "dataset.deleted",
            tenant_id=tenant.id,
            subject=Subject("dataset", dataset.id, dataset.sha256[:8]),
        )
    left = across_tenants("tenants with equal datasets share the folder").select(
        DatasetVersion.sha256
    )
    shared = await session.scalars(left.where(DatasetVersion.sha256.in_(hashes)))
    return tuple(hashes.difference(shared))
